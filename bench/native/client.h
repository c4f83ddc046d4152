/* What the load clients share: the clock, a connection to the peer, the canned request, the response head. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct head {
    int status;
    size_t body; /* Content-Length */
    size_t size; /* bytes of the head with its empty line */
    int close;   /* Connection: close */
};

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

/* A connected socket; blocking, since a connect on loopback does not wait. -1 with errno where it fails. */
static inline int dial(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) return -1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The whole request as it goes over the wire, from a file. */
static inline char *load_request(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    static char text[65536];
    *size = fread(text, 1, sizeof text, file);
    fclose(file);
    return text;
}

/* 1: whole and understood, 0: more bytes needed, -1: not a response framed by Content-Length. */
static inline int parse_head(const char *text, size_t size, struct head *out) {
    const char *stop = memmem(text, size, "\r\n\r\n", 4);
    if (!stop) return 0;
    if (size < 12 || memcmp(text, "HTTP/1.", 7)) return -1;
    int framed = 0;
    out->status = atoi(text + 9);
    out->size = (size_t)(stop + 4 - text);
    out->close = 0;
    for (const char *line = text; line < stop && (line = memchr(line, '\n', (size_t)(stop + 2 - line)));) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            out->body = strtoul(line + 15, NULL, 10);
            framed = 1;
        } else if (strncasecmp(line, "connection: close", 17) == 0) {
            out->close = 1;
        }
    }
    return framed ? 1 : -1;
}
#endif
