/* A folder of one test, removed with what it holds. */
#ifndef TERNION_TESTS_ONNX_IO_TEMP_FOLDER_H
#define TERNION_TESTS_ONNX_IO_TEMP_FOLDER_H

#include <stddef.h>

/* cmocka's setup and teardown of a test; 0. */
int temp_make(void **state);
int temp_remove(void **state);

/* FOLDER/name; valid until eight further calls. */
const char *temp_path(const char *name);
void temp_write(const char *name, const void *bytes, size_t size);
/* The whole file, to be freed; NULL when it does not exist. */
unsigned char *temp_read(const char *name, size_t *size);
/* Entries of the folder. */
int temp_count(void);

#endif
