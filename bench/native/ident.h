/* What service answers and tally expects: a body of 100 bytes that no other request's answer can be taken for. */
#ifndef BENCH_IDENT_H
#define BENCH_IDENT_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BODY = 100, ID_DIGITS = 16, ENDPOINT_AT = 17, ENDPOINT_DIGITS = 3 };

/* "<id in 16 hex digits> <endpoint in 3 digits> xxxx..." */
static inline void write_body(char *out, uint64_t id, unsigned endpoint) {
    char text[32];
    int n = snprintf(text, sizeof text, "%016llx %03u ", (unsigned long long)id, endpoint % 1000);
    memset(out, 'x', BODY);
    memcpy(out, text, (size_t)n);
}
#endif
