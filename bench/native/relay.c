/*
 * The floor: a relay that parses nothing. One thread, epoll; each downstream connection gets an upstream connection of
 * its own for its lifetime, bytes go across as they come. No proxy that takes the same system calls can be cheaper.
 *
 * A side that cannot be written keeps its unsent bytes, and the other side is not read until they are gone.
 *
 * usage: relay PORT UPSTREAM_PORT     (127.0.0.1 both)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536, EVENTS = 256 };

struct side {
    int fd;
    int dead;           /* closed in this round of events; freed when the round is over */
    unsigned interest;  /* what epoll watches */
    struct side *other;
    char *unsent;       /* bytes from `other` that this side could not take yet */
    size_t unsent_size;
    struct side *next_dead;
};

static int loop;
static struct side *graveyard;

static int watch(struct side *s, unsigned interest) {
    if (s->interest == interest) return 0;
    s->interest = interest;
    struct epoll_event ev = {.events = interest, .data.ptr = s};
    return epoll_ctl(loop, EPOLL_CTL_MOD, s->fd, &ev);
}

static void end(struct side *s) {
    struct side *pair[2] = {s, s->other};
    for (int i = 0; i < 2; i++) {
        if (pair[i]->dead) continue;
        pair[i]->dead = 1;
        close(pair[i]->fd);
        free(pair[i]->unsent);
        pair[i]->next_dead = graveyard;
        graveyard = pair[i];
    }
}

/* Bytes that `s` took, 0 where its buffer is full (or its connect still runs), -1 where it is lost. */
static ssize_t put(struct side *s, const char *data, size_t size) {
    ssize_t n = send(s->fd, data, size, MSG_NOSIGNAL);
    if (n >= 0) return n;
    return errno == EAGAIN || errno == EINTR || errno == ENOTCONN ? 0 : -1;
}

static int readable(struct side *s) {
    static char chunk[CHUNK];
    if (s->other->unsent) return -1; /* not watched for reading: this is a hang-up or an error */
    ssize_t n = read(s->fd, chunk, sizeof chunk);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    ssize_t sent = put(s->other, chunk, (size_t)n);
    if (sent < 0) return -1;
    if (sent == n) return 0;
    size_t left = (size_t)(n - sent);
    s->other->unsent = malloc(left);
    if (!s->other->unsent) abort();
    memcpy(s->other->unsent, chunk + sent, left);
    s->other->unsent_size = left;
    return watch(s, s->interest & ~(unsigned)EPOLLIN) || watch(s->other, s->other->interest | EPOLLOUT);
}

static int writable(struct side *s) {
    ssize_t n = put(s, s->unsent, s->unsent_size);
    if (n < 0) return -1;
    s->unsent_size -= (size_t)n;
    if (s->unsent_size) {
        memmove(s->unsent, s->unsent + n, s->unsent_size);
        return 0;
    }
    free(s->unsent);
    s->unsent = NULL;
    return watch(s, s->interest & ~(unsigned)EPOLLOUT) || watch(s->other, s->other->interest | EPOLLIN);
}

static struct side *add(int fd) {
    int one = 1;
    struct side *s = calloc(1, sizeof *s);
    if (!s) abort();
    s->fd = fd;
    s->interest = EPOLLIN;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev) < 0) abort();
    return s;
}

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static void accept_all(int listener, const struct sockaddr_in *upstream) {
    for (;;) {
        int down = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (down < 0) return;
        int up = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (up < 0 || (connect(up, (const struct sockaddr *)upstream, sizeof *upstream) && errno != EINPROGRESS)) {
            perror("relay: connect");
            if (up >= 0) close(up);
            close(down);
            continue;
        }
        struct side *a = add(down), *b = add(up);
        a->other = b;
        b->other = a;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: relay PORT UPSTREAM_PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in at = loopback(argv[1]), upstream = loopback(argv[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096) ||
        epoll_ctl(loop, EPOLL_CTL_ADD, listener, &ev)) {
        perror("relay: listen");
        return 1;
    }
    for (;;) {
        int n = epoll_wait(loop, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct side *s = events[i].data.ptr;
            if (!s) {
                accept_all(listener, &upstream);
                continue;
            }
            int lost = 0;
            if (!s->dead && events[i].events & EPOLLOUT) lost = writable(s);
            if (!s->dead && !lost && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) lost = readable(s);
            if (!s->dead && lost) end(s);
        }
        while (graveyard) {
            struct side *next = graveyard->next_dead;
            free(graveyard);
            graveyard = next;
        }
    }
}
