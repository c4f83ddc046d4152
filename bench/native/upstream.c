/*
 * The service behind every peer: one thread, epoll, keep-alive, canned answers, as cheap as correct framing allows.
 *
 * The request path's ending chooses the answer, so that any number of routes may lead here:
 *   .../100k  a body of 100 KiB;  .../100m  a body of 100 MiB;  /__stats  {"connections", "requests"} as JSON;
 *   .../2k  a JSON object of 2 KiB;  .../NNms/2k  the same, NN ms after the request;  anything else  a JSON body of
 *   100 bytes.
 * A request body is read by its Content-Length and discarded; one with Transfer-Encoding is answered 411 and closed,
 * so that a peer that re-frames bodies is seen instead of measured wrongly.
 *
 * usage: upstream ENDPOINTS     (free ports of 127.0.0.1, printed in one line once it listens on all)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 32768, BLOCK = 1 << 20, EVENTS = 256, SMALL = 100, DOCUMENT = 2048, ENDPOINTS = 64 };

struct conn {
    int fd;
    int blocked;         /* waits for EPOLLOUT; nothing is read until the answer is written */
    int close_after;     /* the answer under way is the last one */
    size_t used;         /* bytes of buf that are filled */
    size_t skip;         /* bytes of a request body still to be discarded */
    size_t head_left;    /* bytes of the response head still to be written */
    size_t body_left;    /* bytes of the response body still to be written */
    const char *body;    /* its end stands `body_left` before this; NULL: it is made of blocks */
    int64_t due;         /* the answer goes out then (CLOCK_MONOTONIC, ns); 0: at once */
    struct conn *next;   /* of those that wait for their time, the earliest first */
    char head[320];
    char buf[HEAD_MAX];
};

static char block[BLOCK]; /* what large bodies are made of */
static char document[DOCUMENT + 1];
static struct conn *waiting;
static char date[40];
static unsigned long connections, requests;
static int loop, listeners[ENDPOINTS];

static void refresh_date(void) {
    static time_t last;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec == last) return;
    last = now.tv_sec;
    struct tm parts;
    gmtime_r(&last, &parts);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A JSON object as services answer with: nested, of all types, exactly DOCUMENT bytes. */
static void write_document(void) {
    size_t used = (size_t)snprintf(
        document, sizeof document,
        "{\"id\": 4711, \"customer\": {\"id\": \"c-0815\", \"name\": \"Ada Lovelace\", \"tier\": \"gold\", \"active\": true}, "
        "\"placed\": \"2026-11-20T09:12:44Z\", \"total\": 1249.90, \"note\": null, \"items\": [");
    for (int i = 0; used < DOCUMENT - 300; i++)
        used += (size_t)snprintf(
            document + used, sizeof document - used,
            "%s{\"sku\": \"A-%05d\", \"title\": \"A thing of some use, number %d\", \"quantity\": %d, \"price\": %d.95, "
            "\"tags\": [\"new\", \"blue\"]}", i ? ", " : "", 1000 + i, i, i % 3 + 1, 10 + i);
    used += (size_t)snprintf(document + used, sizeof document - used, "], \"padding\": \"");
    snprintf(document + used, sizeof document - used, "%0*d\"}", (int)(DOCUMENT - used - 2), 0);
}

static void wait_until(struct conn *c, int64_t due) {
    struct conn **at = &waiting;
    c->due = due;
    while (*at && (*at)->due <= due) at = &(*at)->next;
    c->next = *at;
    *at = c;
}

static void end(struct conn *c) {
    for (struct conn **at = &waiting; c->due && *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    close(c->fd);
    free(c);
}

/* Writes what is left of the answer. 1: all written, 0: blocked, -1: connection lost. */
static int flush(struct conn *c) {
    size_t head_size = strlen(c->head);
    while (c->head_left || c->body_left) {
        size_t chunk = c->body_left < BLOCK ? c->body_left : BLOCK;
        char *body = c->body ? (char *)c->body - c->body_left : block;
        struct iovec parts[2] = {{c->head + head_size - c->head_left, c->head_left}, {body, chunk}};
        ssize_t n = c->head_left ? writev(c->fd, parts, 2) : write(c->fd, body, chunk);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return -1;
            if (!c->blocked) {
                struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = c};
                if (epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &ev) < 0) return -1;
                c->blocked = 1;
            }
            return 0;
        }
        size_t from_head = (size_t)n < c->head_left ? (size_t)n : c->head_left;
        c->head_left -= from_head;
        c->body_left -= (size_t)n - from_head;
    }
    if (c->blocked) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &ev) < 0) return -1;
        c->blocked = 0;
    }
    return c->close_after ? -1 : 1;
}

static int ends_with(const char *path, size_t size, const char *tail) {
    size_t n = strlen(tail);
    return size >= n && memcmp(path + size - n, tail, n) == 0;
}

/* The value of a field in a head, or NULL; heads here are short and come from known peers. */
static const char *field(const char *head, const char *stop, const char *name) {
    size_t n = strlen(name);
    for (const char *line = head; (line = memchr(line, '\n', (size_t)(stop - line))) && ++line + n < stop;)
        if (strncasecmp(line, name, n) == 0) return line + n;
    return NULL;
}

/* The milliseconds of a path that ends in /NNms/2k, else 0. */
static long delay(const char *path, size_t size) {
    static const char tail[] = "ms/2k";
    if (!ends_with(path, size, tail)) return 0;
    const char *at = path + size - (sizeof tail - 1);
    while (at > path && at[-1] >= '0' && at[-1] <= '9') at--;
    return strtol(at, NULL, 10);
}

static int answer(struct conn *c, const char *head, size_t size) {
    const char *stop = head + size;
    const char *path = memchr(head, ' ', size);
    const char *path_end = path ? memchr(path + 1, ' ', (size_t)(stop - path - 1)) : NULL;
    if (!path_end) return -1;
    path++;
    size_t path_size = (size_t)(path_end - path);
    const char *status = "200 OK";
    char text[SMALL + 1];
    size_t body = 0;
    requests++;
    c->skip = 0;
    c->close_after = 0;
    c->body = NULL;
    if (head[0] != 'G') {
        const char *length = field(head, stop, "content-length:");
        if (length) c->skip = strtoul(length, NULL, 10);
        if (field(head, stop, "transfer-encoding:")) {
            status = "411 Length Required";
            c->close_after = 1;
        }
    }
    text[0] = 0;
    if (ends_with(path, path_size, "/100k"))
        body = 100 << 10;
    else if (ends_with(path, path_size, "/100m"))
        body = 100 << 20;
    else if (ends_with(path, path_size, "/2k")) {
        body = DOCUMENT;
        c->body = document + DOCUMENT;
    } else if (ends_with(path, path_size, "/__stats"))
        snprintf(text, sizeof text, "{\"connections\": %lu, \"requests\": %lu}", connections, requests - 1);
    else
        snprintf(text, sizeof text, "{\"message\": \"%0*d\"}", SMALL - 15, 0);
    c->head_left = (size_t)snprintf(
        c->head, sizeof c->head,
        "HTTP/1.1 %s\r\nServer: upstream\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n%s", status,
        date, body && !c->body ? "application/octet-stream" : "application/json", body ? body : strlen(text),
        c->close_after ? "Connection: close\r\n" : "", text);
    c->body_left = body;
    long pause = c->body ? delay(path, path_size) : 0;
    if (pause <= 0) return flush(c);
    wait_until(c, now_ns() + pause * 1000000);
    return 0;
}

/* Reads once and answers every whole request in the buffer. -1: the connection is over. */
static int readable(struct conn *c) {
    ssize_t n = read(c->fd, c->buf + c->used, sizeof c->buf - c->used);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    c->used += (size_t)n;
    return 1;
}

static int work(struct conn *c) {
    size_t at = 0;
    int state = 1;
    while (state > 0 && at < c->used) {
        if (c->skip) {
            size_t n = c->used - at < c->skip ? c->used - at : c->skip;
            c->skip -= n;
            at += n;
            continue;
        }
        char *stop = memmem(c->buf + at, c->used - at, "\r\n\r\n", 4);
        if (!stop) break;
        size_t size = (size_t)(stop + 4 - (c->buf + at));
        state = answer(c, c->buf + at, size);
        at += size;
    }
    if (state < 0) return -1;
    memmove(c->buf, c->buf + at, c->used - at);
    c->used -= at;
    return c->used == sizeof c->buf ? -1 : 0; /* a head larger than the buffer */
}

static int listen_anywhere(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, size) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&at, &size)) {
        perror("upstream: listen");
        exit(1);
    }
    printf("%d ", ntohs(at.sin_port));
    return fd;
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0) return;
        struct conn *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev) < 0) end(c);
        connections++;
    }
}

int main(int argc, char **argv) {
    int endpoints = argc == 2 ? atoi(argv[1]) : 0;
    if (endpoints < 1 || endpoints > ENDPOINTS) {
        fprintf(stderr, "usage: upstream ENDPOINTS     (1 to %d)\n", ENDPOINTS);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    memset(block, 'x', sizeof block);
    write_document();
    prctl(PR_SET_TIMERSLACK, 1UL); /* an answer that waits goes out in time */
    loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS];
    for (int i = 0; i < endpoints; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &listeners[i]};
        listeners[i] = listen_anywhere();
        if (epoll_ctl(loop, EPOLL_CTL_ADD, listeners[i], &ev) < 0) return 1;
    }
    printf("\n");
    fflush(stdout);
    for (;;) {
        struct timespec patience = {0, 0};
        if (waiting) {
            int64_t left = waiting->due - now_ns();
            if (left > 0) patience = (struct timespec){left / 1000000000, left % 1000000000};
        }
        int n = epoll_pwait2(loop, events, EVENTS, waiting ? &patience : NULL, NULL);
        refresh_date();
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            int *listener = events[i].data.ptr;
            if (listener >= listeners && listener < listeners + endpoints) {
                accept_all(*listener);
                continue;
            }
            int state = events[i].events & EPOLLOUT ? flush(c) : readable(c);
            if (state > 0 && !c->due) state = work(c);
            if (state < 0) end(c);
        }
        while (waiting && waiting->due <= now_ns()) {
            struct conn *c = waiting;
            waiting = c->next;
            c->due = 0;
            int state = flush(c);
            if (state > 0) state = work(c);
            if (state < 0) end(c);
        }
    }
}
