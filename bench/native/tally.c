/*
 * Open-loop load that accounts for every request: request k is due at start + k/RATE, carries k as its id, and has exactly
 * one record in RECORDS: when it was due, when it ended and how. An answer counts only if it is whole and is the one to
 * this very request (ident.h). Nothing is sent twice: what a client library would repeat in silence is a failure here.
 *
 * A request that is not answered DEADLINE_MS after it was due is given up and its connection closed, as by a client with a
 * time-out; one that found no free connection until then was never sent. Every POST_EVERY-th request is a POST (0: none).
 * It ends after SECONDS, or with SIGTERM, in both cases when the last request sent has ended.
 *
 * usage: tally PORT RATE CONNECTIONS SECONDS DEADLINE_MS POST_EVERY RECORDS     -> one JSON object on stdout
 */
#include "client.h"
#include "ident.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum { BUFFER = 8192, EVENTS = 256, REASONS = 64, REASON_SIZE = 48 };

enum outcome { UNDECIDED, OK, STATUS, CONNECT, UNANSWERED, TRUNCATED, TIMEOUT, UNSENT, WRONG };

struct record {
    int64_t due, done; /* CLOCK_MONOTONIC, ns */
    uint16_t status;
    uint8_t outcome;
    uint8_t reason;    /* index into `reasons`: the "code" of a problem+json body */
    uint16_t endpoint; /* that answered; 0xffff: unknown */
    uint8_t post;
    uint8_t spare;
};

struct conn {
    int fd; /* -1: dialled when it is needed */
    int connecting;
    long request; /* index of its record, -1: free */
    size_t used;
    char buf[BUFFER + 1];
};

static int port, loop, count, post_every;
static struct conn *conns;
static int *carriers; /* request -> its connection */
static int *idle, idle_first, idle_size; /* ring of free connections, that free longest first */
static struct record *records;
static char reasons[REASONS][REASON_SIZE];
static int reason_count = 1;
static long oldest, next;
static volatile sig_atomic_t stopping;

static void on_term(int number) {
    (void)number;
    stopping = 1;
}

static void drop(struct conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

/* The connection's request has ended; the connection is free. */
static void finish(struct conn *c, enum outcome how) {
    struct record *r = &records[c->request];
    r->done = now_ns();
    r->outcome = (uint8_t)how;
    c->request = -1;
    c->used = 0;
    idle[(idle_first + idle_size++) % count] = (int)(c - conns);
}

static void fail(struct conn *c, enum outcome how) {
    drop(c);
    if (c->request >= 0) finish(c, how);
}

static void transmit(struct conn *c) {
    static const char *const head = "%s /svc/00000/id/%016lx HTTP/1.1\r\nHost: api.example.com\r\n"
                                    "User-Agent: bench/1\r\nAccept: */*\r\n%s\r\n%s";
    char text[512];
    int post = records[c->request].post;
    int n = snprintf(text, sizeof text, head, post ? "POST" : "GET", c->request,
                     post ? "Content-Type: text/plain\r\nContent-Length: 8\r\n" : "", post ? "delivery" : "");
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n) fail(c, UNANSWERED);
}

static void open_conn(struct conn *c) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = c};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("tally: socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->connecting = 1;
    if ((connect(c->fd, (struct sockaddr *)&at, sizeof at) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        fail(c, CONNECT);
}

static void connected(struct conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    c->connecting = 0;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error ||
        epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &ev) < 0)
        fail(c, CONNECT);
    else
        transmit(c);
}

static void issue(long k) {
    struct conn *c = &conns[idle[idle_first]];
    idle_first = (idle_first + 1) % count;
    idle_size--;
    c->request = k;
    carriers[k] = (int)(c - conns);
    if (c->fd < 0)
        open_conn(c);
    else
        transmit(c);
}

/* The index of the "code" of a problem+json body; a table that is full calls the rest by its last entry. */
static uint8_t reason_of(const char *body, size_t size) {
    const char *at = memmem(body, size, "\"code\":\"", 8);
    if (!at) return 0;
    at += 8;
    const char *stop = memchr(at, '"', size - (size_t)(at - body));
    size_t n = stop ? (size_t)(stop - at) : 0;
    if (!n || n >= REASON_SIZE) return 0;
    for (size_t i = 0; i < n; i++)
        if (!((at[i] >= 'a' && at[i] <= 'z') || at[i] == '-' || (at[i] >= '0' && at[i] <= '9'))) return 0;
    for (int i = 1; i < reason_count; i++)
        if (strlen(reasons[i]) == n && memcmp(reasons[i], at, n) == 0) return (uint8_t)i;
    if (reason_count < REASONS) memcpy(reasons[reason_count++], at, n);
    return (uint8_t)(reason_count - 1);
}

static void judge(struct conn *c, const struct head *head) {
    struct record *r = &records[c->request];
    const char *body = c->buf + head->size;
    char expected[BODY];
    enum outcome how = OK;
    r->status = (uint16_t)head->status;
    if (head->body == BODY) {
        unsigned endpoint = (unsigned)atoi(body + ENDPOINT_AT);
        write_body(expected, (uint64_t)c->request, endpoint);
        if (memcmp(body, expected, BODY) == 0) r->endpoint = (uint16_t)endpoint;
    }
    if (head->status < 200 || head->status > 299) {
        r->reason = reason_of(body, head->body);
        how = STATUS;
    } else if (r->endpoint == 0xffff) {
        how = WRONG;
    }
    if (head->close) drop(c);
    finish(c, how);
}

static void readable(struct conn *c) {
    struct head head;
    ssize_t n = recv(c->fd, c->buf + c->used, BUFFER - c->used, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c->request < 0) { /* the second: bytes that nobody asked for, or the peer closes a free connection */
        fail(c, c->used ? TRUNCATED : UNANSWERED);
        return;
    }
    c->used += (size_t)n;
    c->buf[c->used] = 0;
    int state = parse_head(c->buf, c->used, &head);
    if (state < 0 || c->used > (state ? head.size + head.body : BUFFER - 1) || (state && head.size + head.body > BUFFER))
        fail(c, WRONG);
    else if (state && c->used == head.size + head.body)
        judge(c, &head);
}

/* Gives up what is past its deadline. Requests are sent in the order in which they are due. */
static void expire(int64_t now, int64_t deadline) {
    for (; oldest < next; oldest++) {
        struct record *r = &records[oldest];
        if (r->outcome != UNDECIDED) continue;
        if (now - r->due < deadline) return;
        fail(&conns[carriers[oldest]], TIMEOUT);
    }
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: tally PORT RATE CONNECTIONS SECONDS DEADLINE_MS POST_EVERY RECORDS\n");
        return 2;
    }
    port = atoi(argv[1]);
    double rate = atof(argv[2]), seconds = atof(argv[4]);
    count = atoi(argv[3]);
    int64_t deadline = (int64_t)(atof(argv[5]) * 1e6);
    post_every = atoi(argv[6]);
    if (rate <= 0 || count <= 0 || seconds <= 0 || deadline <= 0 || rate * seconds > 2e7) {
        fprintf(stderr, "tally: RATE, CONNECTIONS, SECONDS, DEADLINE_MS are above 0, and 20 million requests the most\n");
        return 2;
    }
    long total = (long)(rate * seconds);
    conns = calloc((size_t)count, sizeof *conns);
    idle = calloc((size_t)count, sizeof *idle);
    carriers = calloc((size_t)total + 1, sizeof *carriers);
    records = calloc((size_t)total + 1, sizeof *records);
    FILE *out = fopen(argv[7], "wb");
    loop = epoll_create1(EPOLL_CLOEXEC);
    if (!conns || !idle || !carriers || !records || !out || loop < 0) die("tally");
    struct sigaction act = {.sa_handler = on_term};
    sigaction(SIGTERM, &act, NULL);
    prctl(PR_SET_TIMERSLACK, 1UL);
    for (int i = 0; i < count; i++) {
        conns[i].fd = -1;
        conns[i].request = -1;
        idle[idle_size++] = i;
    }
    struct epoll_event events[EVENTS];
    int64_t start = now_ns() + 10000000;
    while ((!stopping && next < total) || idle_size < count) {
        int64_t now = now_ns(), wake = 10000000;
        expire(now, deadline);
        while (!stopping && next < total) {
            struct record *r = &records[next];
            int64_t due = start + (int64_t)((double)next * 1e9 / rate);
            if (due > now) {
                if (due - now < wake) wake = due - now;
                break;
            }
            int late = now - due >= deadline;
            if (!idle_size && !late) break;
            *r = (struct record){.due = due, .endpoint = 0xffff, .post = post_every && next % post_every == 0};
            if (late) {
                r->done = now;
                r->outcome = UNSENT;
                next++;
            } else {
                issue(next++);
            }
        }
        struct timespec patience = {0, wake};
        int n = epoll_pwait2(loop, events, EVENTS, &patience, NULL);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c->fd < 0) continue; /* closed since */
            if (c->connecting)
                connected(c);
            else
                readable(c);
        }
    }
    if (fwrite(records, sizeof *records, (size_t)next, out) != (size_t)next || fclose(out)) die("tally: records");
    printf("{\"requests\": %ld, \"reasons\": [\"\"", next);
    for (int i = 1; i < reason_count; i++) printf(", \"%s\"", reasons[i]);
    printf("]}\n");
    return 0;
}
