/* small_tool OUT LARGE: writes the small test model. */
#include "small_model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    wire file = small_model(atoi(argv[2]));
    FILE *out = fopen(argv[1], "wb");
    if (!out || fwrite(file.bytes, 1, file.size, out) != file.size || fclose(out) != 0)
        return 6;
    wire_free(&file);
    return 0;
}
