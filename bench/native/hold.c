/*
 * Idle connections: opens COUNT, serves one request on each (BATCH at a time, so that the peer needs few upstream
 * connections), says `held N`, and keeps them open until stdin ends; then says how many were still open: `open N`.
 *
 * usage: hold PORT COUNT BATCH REQUEST_FILE
 */
#include "client.h"
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>

static int read_answer(int fd) {
    char buf[16384];
    size_t used = 0;
    struct head head = {.size = 0};
    for (;;) {
        ssize_t n = recv(fd, buf + used, sizeof buf - used, 0);
        if (n <= 0) return -1;
        used += (size_t)n;
        if (!head.size && parse_head(buf, used, &head) < 0) return -1;
        if (head.size && used >= head.size + head.body) return head.status == 200 ? 0 : -1;
        if (used == sizeof buf) return -1;
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: hold PORT COUNT BATCH REQUEST_FILE\n");
        return 2;
    }
    int port = atoi(argv[1]), count = atoi(argv[2]), batch = atoi(argv[3]), still = 0;
    size_t size;
    char *request = load_request(argv[4], &size);
    struct pollfd *held = calloc((size_t)(count > 0 ? count : 1), sizeof *held);
    struct rlimit limit;
    if (count < 1 || batch < 1 || !held || getrlimit(RLIMIT_NOFILE, &limit)) {
        fprintf(stderr, "hold: COUNT and BATCH must be positive\n");
        return 2;
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int first = 0; first < count; first += batch) {
        int stop = first + batch < count ? first + batch : count;
        struct timeval patience = {.tv_sec = 10, .tv_usec = 0};
        for (int i = first; i < stop; i++) {
            held[i].fd = dial(port);
            held[i].events = POLLIN;
            if (held[i].fd < 0) die("hold: connect");
            setsockopt(held[i].fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
            if (send(held[i].fd, request, size, MSG_NOSIGNAL) != (ssize_t)size) die("hold: send");
        }
        for (int i = first; i < stop; i++)
            if (read_answer(held[i].fd) < 0) {
                fprintf(stderr, "hold: connection %d of %d got no 200\n", i + 1, count);
                return 1;
            }
    }
    printf("held %d\n", count);
    fflush(stdout);
    while (getchar() != EOF) continue;
    if (poll(held, (nfds_t)count, 0) < 0) die("hold: poll");
    for (int i = 0; i < count; i++) still += held[i].revents == 0;
    printf("open %d\n", still);
    return 0;
}
