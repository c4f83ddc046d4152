/*
 * Downloads in a loop: CONNECTIONS at a time, one answer after the other on each, for SECONDS. The bytes are dropped
 * inside the kernel (MSG_TRUNC copies nothing), so that the client leaves its core to the upstream.
 *
 * usage: fetch PORT CONNECTIONS SECONDS REQUEST_FILE      -> one JSON object on stdout
 */
#include "client.h"
#include <fcntl.h>
#include <sys/epoll.h>

enum { BUFFER = 8192, CONNECTIONS_MAX = 256, DROP = 1 << 20 };

struct conn {
    int fd;
    size_t used, left; /* bytes of an incomplete head; bytes of the body still to come */
    int in_body;
    char buf[BUFFER];
};

static struct conn conns[CONNECTIONS_MAX];
static char *request;
static size_t request_size;
static unsigned long long bytes;
static long answers, refused, errors;

static void ask(struct conn *c) {
    c->used = c->left = 0;
    c->in_body = 0;
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) errors++;
}

/* 0 where the connection is over. */
static int readable(struct conn *c) {
    if (!c->in_body) {
        struct head head;
        ssize_t n = recv(c->fd, c->buf + c->used, sizeof c->buf - c->used, 0);
        if (n < 0 && errno == EAGAIN) return 1;
        if (n <= 0) return 0;
        c->used += (size_t)n;
        int state = parse_head(c->buf, c->used, &head);
        if (state < 0 || (!state && c->used == sizeof c->buf)) return 0;
        if (!state) return 1;
        if (head.status != 200) refused++;
        size_t early = c->used - head.size;
        if (early > head.body) return 0;
        bytes += early;
        c->left = head.body - early;
        c->in_body = 1;
    } else {
        ssize_t n = recv(c->fd, NULL, c->left < DROP ? c->left : DROP, MSG_TRUNC);
        if (n < 0 && errno == EAGAIN) return 1;
        if (n <= 0) return 0;
        bytes += (unsigned long long)n;
        c->left -= (size_t)n;
    }
    if (!c->left) {
        answers++;
        ask(c);
    }
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: fetch PORT CONNECTIONS SECONDS REQUEST_FILE\n");
        return 2;
    }
    int port = atoi(argv[1]), count = atoi(argv[2]);
    int64_t start, stop;
    if (count < 1 || count > CONNECTIONS_MAX) {
        fprintf(stderr, "fetch: CONNECTIONS is 1 to %d\n", CONNECTIONS_MAX);
        return 2;
    }
    request = load_request(argv[4], &request_size);
    int loop = epoll_create1(EPOLL_CLOEXEC);
    start = now_ns();
    stop = start + (int64_t)(atof(argv[3]) * 1e9);
    for (int i = 0; i < count; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &conns[i]};
        conns[i].fd = dial(port);
        if (conns[i].fd < 0) die("fetch: connect");
        if (fcntl(conns[i].fd, F_SETFL, O_NONBLOCK) < 0) die("fetch: fcntl");
        if (epoll_ctl(loop, EPOLL_CTL_ADD, conns[i].fd, &ev) < 0) die("fetch: epoll");
        ask(&conns[i]);
    }
    struct epoll_event events[CONNECTIONS_MAX];
    int open = count;
    while (open && now_ns() < stop) {
        int n = epoll_wait(loop, events, CONNECTIONS_MAX, 100);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (readable(c)) continue;
            errors++;
            open--;
            close(c->fd);
        }
    }
    printf("{\"bytes\": %llu, \"answers\": %ld, \"refused\": %ld, \"errors\": %ld, \"seconds\": %.6f}\n", bytes, answers,
           refused, errors, (double)(now_ns() - start) / 1e9);
    return 0;
}
