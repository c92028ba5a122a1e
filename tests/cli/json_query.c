/* Reads one JSON object from standard input and answers questions about it, for shell tests.
 * usage: json_query PATH      prints a value: .layers[2].bits, .layers.length, .layers[0].keys
 * Exit code 1 when there is no such value, 2 when the input is not JSON. */
#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_value(const json_t *value)
{
    if (json_is_string(value)) {
        puts(json_string_value(value));
    } else {
        json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
        fputc('\n', stdout);
    }
}

static void print_keys(json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) printf("%s ", key);
    fputc('\n', stdout);
}

/* The member that `path` begins with, and where the path goes on. */
static json_t *step(json_t *value, const char **path)
{
    const char *at = *path;
    if (*at == '[') {
        size_t index = (size_t)strtoul(at + 1, NULL, 10);
        *path = strchr(at, ']') ? strchr(at, ']') + 1 : "";
        return json_array_get(value, index);
    }
    char name[128] = "";
    size_t length = strcspn(++at, ".[");
    if (length >= sizeof name)
        return NULL;
    memcpy(name, at, length);
    *path = at + length;
    return json_object_get(value, name);
}

/* Prints what `path` asks for; 1 when there is no such value. */
static int answer(json_t *value, const char *path)
{
    while (value && *path) {
        if (strcmp(path, ".length") == 0 && json_is_array(value)) {
            printf("%zu\n", json_array_size(value));
            return 0;
        }
        if (strcmp(path, ".keys") == 0 && json_is_object(value)) {
            print_keys(value);
            return 0;
        }
        value = step(value, &path);
    }
    if (!value)
        return 1;
    print_value(value);
    return 0;
}

int main(int argc, char **argv)
{
    json_error_t error;
    json_t *root = json_loadf(stdin, 0, &error);
    int code = 2;
    if (argc != 2 || !root)
        fprintf(stderr, "json_query: %s\n", root ? "one path" : error.text);
    else
        code = answer(root, argv[1]);
    json_decref(root);
    return code;
}
