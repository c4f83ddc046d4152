/*
 * Open-loop load: requests fall due at a constant rate, whatever the peer does, and a latency is counted from the
 * instant the request was due, not from when a connection was free to carry it (no coordinated omission).
 *
 * Request k is due at start + k/rate. Due requests take the connection that has been free longest; each connection
 * carries one request at a time. With GIVE_UP_MS > 0 a request that found no connection for so long is given up
 * (counted, not sent), and an answer is in time when it came within that bound of being due: that is overload's goodput.
 *
 * "losses" are requests that were sent and not answered: the port of the client's end of the connection, and when on the
 * monotonic clock. So a caller that knows who had which connection can tell whose they were.
 *
 * usage: paced PORT RATE CONNECTIONS SECONDS GIVE_UP_MS REQUEST_FILE      -> one JSON object on stdout
 */
#include "client.h"
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <fcntl.h>
#include <inttypes.h>

enum { BUFFER = 8192, EVENTS = 256, DRAIN_SECONDS = 2, LOSSES = 10000 };

struct conn {
    int fd;
    int port;      /* of our end */
    int busy;
    int64_t due, sent;
    size_t used;   /* bytes of an incomplete head */
    size_t body;   /* bytes of the body still to come, once `status` is known */
    int status;
    int last;      /* the answer says that the connection is closed behind it */
    char buf[BUFFER];
};

static int port, loop, count;
static struct conn *conns;
static int *idle; /* ring of free connections, oldest first */
static int idle_first, idle_size;
static char *request;
static size_t request_size;
static uint64_t *waits, *services; /* ns from due, ns from sent */
static long answered, in_time, refused, errors, given_up, reconnects;
static long statuses[600];
static int64_t give_up;
static struct { int port; int64_t at; } losses[LOSSES]; /* the first ones */

static void release(int i) {
    conns[i].busy = 0;
    idle[(idle_first + idle_size++) % count] = i;
}

static void lose(int i) {
    if (errors < LOSSES) {
        losses[errors].port = conns[i].port;
        losses[errors].at = now_ns();
    }
    errors++;
}

static void open_conn(int i) {
    struct conn *c = &conns[i];
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    c->fd = dial(port);
    if (c->fd < 0) die("paced: connect");
    if (getsockname(c->fd, (struct sockaddr *)&own, &size) < 0) die("paced: getsockname");
    c->port = ntohs(own.sin_port);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) die("paced: fcntl");
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &ev) < 0) die("paced: epoll");
    c->used = c->body = 0;
    c->status = c->last = 0;
}

/* The connection is over: an error if it owed an answer, and a new one takes its place. */
static void lost(int i) {
    struct conn *c = &conns[i];
    close(c->fd);
    reconnects++;
    if (c->busy) lose(i);
    open_conn(i);
    if (c->busy) release(i);
}

static void issue(int64_t due) {
    int i = idle[idle_first];
    struct conn *c = &conns[i];
    idle_first = (idle_first + 1) % count;
    idle_size--;
    c->busy = 1;
    c->due = due;
    c->sent = now_ns();
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) lost(i);
}

static void complete(int i) {
    struct conn *c = &conns[i];
    int64_t now = now_ns();
    if (c->status >= 100 && c->status < 600) statuses[c->status]++;
    if (c->status >= 200 && c->status < 300) {
        waits[answered] = (uint64_t)(now - c->due);
        services[answered++] = (uint64_t)(now - c->sent);
        if (!give_up || now - c->due <= give_up) in_time++;
    } else {
        refused++;
    }
    c->status = 0;
    c->used = 0;
    if (c->last) {
        close(c->fd);
        reconnects++;
        open_conn(i);
    }
    release(i);
}

static void readable(int i) {
    struct conn *c = &conns[i];
    ssize_t n = recv(c->fd, c->buf + c->used, sizeof c->buf - c->used, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || !c->busy) {
        lost(i);
        return;
    }
    if (!c->status) {
        struct head head;
        c->used += (size_t)n;
        int state = parse_head(c->buf, c->used, &head);
        if (state < 0 || (!state && c->used == sizeof c->buf)) {
            lost(i);
            return;
        }
        if (!state) return;
        c->status = head.status;
        n = (ssize_t)(c->used - head.size);
        c->used = 0;
        c->body = head.body;
        c->last = head.close;
    }
    if ((size_t)n > c->body) {
        lost(i); /* more than one answer */
        return;
    }
    c->body -= (size_t)n;
    if (!c->body) complete(i);
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(const char *name, uint64_t *values) {
    qsort(values, (size_t)answered, sizeof *values, ascending);
    const double marks[] = {0.5, 0.9, 0.99, 0.999, 1};
    const char *const names[] = {"p50", "p90", "p99", "p999", "max"};
    printf("\"%s\": {", name);
    for (int i = 0; i < 5; i++) {
        long at = (long)(marks[i] * (double)answered);
        if (at >= answered) at = answered - 1;
        printf("%s\"%s\": %.1f", i ? ", " : "", names[i], answered ? (double)values[at] / 1000 : 0.0);
    }
    printf("}");
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: paced PORT RATE CONNECTIONS SECONDS GIVE_UP_MS REQUEST_FILE\n");
        return 2;
    }
    port = atoi(argv[1]);
    double rate = atof(argv[2]), seconds = atof(argv[4]);
    count = atoi(argv[3]);
    give_up = (int64_t)(atof(argv[5]) * 1e6);
    request = load_request(argv[6], &request_size);
    if (rate <= 0 || count <= 0 || seconds <= 0 || rate * seconds > 5e7) {
        fprintf(stderr, "paced: RATE, CONNECTIONS and SECONDS must be positive and below 50 million requests\n");
        return 2;
    }
    long total = (long)(rate * seconds);
    double gap = 1e9 / rate;
    conns = calloc((size_t)count, sizeof *conns);
    idle = calloc((size_t)count, sizeof *idle);
    waits = calloc((size_t)total + 1, sizeof *waits);
    services = calloc((size_t)total + 1, sizeof *services);
    loop = epoll_create1(EPOLL_CLOEXEC);
    if (!conns || !idle || !waits || !services || loop < 0) die("paced");
    prctl(PR_SET_TIMERSLACK, 1UL); /* 50 us of default slack would be the latency measured */
    for (int i = 0; i < count; i++) {
        open_conn(i);
        release(i);
    }
    struct epoll_event events[EVENTS];
    int64_t start = now_ns() + 10000000, stop = start + (int64_t)(seconds * 1e9);
    long next = 0;
    while (next < total || idle_size < count) {
        int64_t now = now_ns();
        if (now > stop + (int64_t)DRAIN_SECONDS * 1000000000) break;
        while (next < total) {
            int64_t due = start + (int64_t)((double)next * gap);
            if (due > now) break;
            if (idle_size) {
                issue(due);
            } else if ((give_up && now - due > give_up) || now > stop) {
                given_up++;
            } else {
                break;
            }
            next++;
        }
        int64_t wake = 100000000;
        if (idle_size && next < total) {
            wake = start + (int64_t)((double)next * gap) - now_ns();
            if (wake < 0) wake = 0;
        }
        struct timespec patience = {wake / 1000000000, wake % 1000000000};
        int n = epoll_pwait2(loop, events, EVENTS, &patience, NULL);
        for (int i = 0; i < n; i++) readable((int)events[i].data.u32);
    }
    for (int i = 0; i < count; i++)
        if (conns[i].busy) lose(i); /* never answered */
    printf("{\"due\": %ld, \"answered\": %ld, \"in_time\": %ld, \"refused\": %ld, \"errors\": %ld, \"given_up\": %ld, "
           "\"reconnects\": %ld, \"seconds\": %.6f, ",
           total, answered, in_time, refused, errors, given_up, reconnects, seconds);
    printf("\"statuses\": {");
    const char *comma = "";
    for (int status = 0; status < 600; status++) {
        if (!statuses[status]) continue;
        printf("%s\"%d\": %ld", comma, status, statuses[status]);
        comma = ", ";
    }
    printf("}, \"losses\": [");
    for (long i = 0; i < errors && i < LOSSES; i++)
        printf("%s[%d, %" PRId64 "]", i ? ", " : "", losses[i].port, losses[i].at);
    printf("], ");
    print_quantiles("wait_us", waits);
    printf(", ");
    print_quantiles("service_us", services);
    printf("}\n");
    return 0;
}
