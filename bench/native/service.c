/*
 * One endpoint of a service that may be killed, stopped, made to fail, or given more than it can carry: one thread, epoll,
 * keep-alive. A request takes DELAY_US, at most SLOTS of them at once (0: any number); more wait in order of arrival. A
 * request whose client has gone is worked on all the same: most servers do not notice.
 *
 *   .../id/HEX   the body of ident.h for that id, or 500 (see errors). A POST's id is first appended to DELIVERIES, so that
 *                what was delivered is known when this process has been killed
 *   /health      200 at once
 *   /__stats     {"requests", "posts", "errors", "active", "connections"} at once
 *   /__errors/N  from now on N percent of the ids are answered 500
 *
 * usage: service PORT ENDPOINT DELAY_US SLOTS DELIVERIES     (127.0.0.1; prints the port on stdout once it listens)
 */
#define _GNU_SOURCE
#include "ident.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 16384, EVENTS = 256 };

struct conn {
    int fd;              /* -1: its client has gone; freed when its work is done */
    int at_work;         /* holds a place in `waiting` or `working` */
    uint64_t id;
    int64_t done_ns;
    struct conn *next;   /* in `waiting` or `working` */
    size_t used;
    char buf[BUFFER];
};

struct queue {
    struct conn *first, *last;
};

static struct queue waiting, working; /* `working` is in order of done_ns: every request takes as long */
static int loop, deliveries, errors_percent;
static unsigned endpoint, slots, taken;
static int64_t delay_ns;
static unsigned long requests, posts, errors, active, connections;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void push(struct queue *q, struct conn *c) {
    c->next = NULL;
    if (q->first)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
}

static struct conn *pop(struct queue *q) {
    struct conn *c = q->first;
    if (c) q->first = c->next;
    return c;
}

static void end(struct conn *c) {
    if (c->fd >= 0) {
        close(c->fd);
        connections--;
    }
    c->fd = -1;
    if (!c->at_work) free(c);
}

/* Answers are far smaller than an empty socket buffer: one that can't be written whole has lost its client. */
static int reply(struct conn *c, const char *status, const char *body, size_t size) {
    char text[512];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %s\r\nServer: service\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%.*s", status,
                     size, (int)size, body);
    return send(c->fd, text, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -1;
}

static void begin(struct conn *c, int64_t now) {
    taken++;
    c->done_ns = now + delay_ns;
    push(&working, c);
}

static int finish(struct conn *c) {
    char body[BODY];
    active--;
    c->at_work = 0;
    if (c->fd < 0) return -1;
    write_body(body, c->id, endpoint);
    if (random() % 100 < errors_percent) {
        errors++;
        return reply(c, "500 Internal Server Error", body, BODY);
    }
    return reply(c, "200 OK", body, BODY);
}

static int serve(struct conn *c, const char *head, const char *path) {
    char text[160];
    if (strncmp(path, "/health ", 8) == 0) return reply(c, "200 OK", "ok\n", 3);
    if (strncmp(path, "/__errors/", 10) == 0) {
        errors_percent = atoi(path + 10);
        return reply(c, "200 OK", "ok\n", 3);
    }
    if (strncmp(path, "/__stats ", 9) == 0) {
        int n = snprintf(text, sizeof text,
                         "{\"requests\": %lu, \"posts\": %lu, \"errors\": %lu, \"active\": %lu, \"connections\": %lu}",
                         requests, posts, errors, active, connections);
        return reply(c, "200 OK", text, (size_t)n);
    }
    const char *id = strstr(path, "/id/");
    if (!id) return reply(c, "404 Not Found", "no id\n", 6);
    c->id = strtoull(id + 4, NULL, 16);
    requests++;
    if (strncmp(head, "POST ", 5) == 0) {
        int n = snprintf(text, sizeof text, "%016llx\n", (unsigned long long)c->id);
        posts++;
        if (write(deliveries, text, (size_t)n) != n) abort(); /* O_APPEND: whole lines, and the kernel keeps them */
    }
    active++;
    c->at_work = 1;
    if (slots && taken == slots)
        push(&waiting, c);
    else
        begin(c, now_ns());
    return 0;
}

/* Serves the request at the front of the buffer, if it is whole and none is at work. -1: the connection is over. */
static int work(struct conn *c) {
    while (!c->at_work && c->used) {
        c->buf[c->used] = 0;
        char *stop = strstr(c->buf, "\r\n\r\n"), *path = strchr(c->buf, ' ');
        if (!stop) return c->used == BUFFER - 1 ? -1 : 0;
        if (!path || path > stop) return -1;
        size_t size = (size_t)(stop + 4 - c->buf), body = 0;
        *stop = 0;
        const char *length = strcasestr(c->buf, "\r\ncontent-length:");
        if (length) body = strtoul(length + 17, NULL, 10);
        *stop = '\r';
        if (size + body >= BUFFER) return -1;
        if (c->used < size + body) return 0;
        if (serve(c, c->buf, path + 1) < 0) return -1;
        memmove(c->buf, c->buf + size + body, c->used - size - body);
        c->used -= size + body;
    }
    return 0;
}

static int readable(struct conn *c) {
    ssize_t n = recv(c->fd, c->buf + c->used, BUFFER - 1 - c->used, 0);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    c->used += (size_t)n;
    return work(c);
}

/* Ends what is done by now; the ns until the next one is, -1 where nothing is at work. */
static int64_t advance(void) {
    int64_t now = now_ns();
    while (working.first && working.first->done_ns <= now) {
        struct conn *c = pop(&working);
        taken--;
        if (finish(c) < 0 || work(c) < 0) end(c);
        if (waiting.first) begin(pop(&waiting), now);
    }
    return working.first ? working.first->done_ns - now : -1;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096)) {
        perror("service: listen");
        exit(1);
    }
    printf("%d\n", port);
    fflush(stdout);
    return fd;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        connections++;
        if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev) < 0) end(c);
    }
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: service PORT ENDPOINT DELAY_US SLOTS DELIVERIES\n");
        return 2;
    }
    endpoint = (unsigned)atoi(argv[2]);
    delay_ns = (int64_t)atol(argv[3]) * 1000;
    slots = (unsigned)atoi(argv[4]);
    deliveries = open(argv[5], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    loop = epoll_create1(EPOLL_CLOEXEC);
    if (deliveries < 0 || loop < 0) {
        perror("service");
        return 1;
    }
    srandom((unsigned)now_ns());
    prctl(PR_SET_TIMERSLACK, 1UL);
    int listener = listen_on(atoi(argv[1]));
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (epoll_ctl(loop, EPOLL_CTL_ADD, listener, &ev) < 0) return 1;
    for (;;) {
        int64_t wait = advance();
        struct timespec patience = {wait / 1000000000, wait % 1000000000};
        int n = epoll_pwait2(loop, events, EVENTS, wait < 0 ? NULL : &patience, NULL);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (readable(c) < 0)
                end(c);
        }
    }
}
