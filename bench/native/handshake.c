/* Connections with TLS: each makes a handshake, sends one request, reads its answer and closes.
 *
 *   handshake PORT THREADS SECONDS RATE RESUME REQUEST [SUITES]
 *
 * RATE: connections in a second, of all threads; 0: as many as the peer makes. RESUME 1: each thread offers the ticket
 * that its last connection brought. SUITES: of TLS 1.3, in the order in which they are offered; without it OpenSSL's.
 * Prints one line of JSON. The peer's certificate is not looked at. */
#include "client.h"
#include <openssl/ssl.h>
#include <pthread.h>

static int port, resume;
static double gap; /* ns between two connections of a thread */
static int64_t until;
static const char *request, *suites;
static size_t request_size;

struct tally {
    pthread_t thread;
    SSL_SESSION *ticket;
    int64_t due;
    long made, resumed, errors;
};

static int keep_ticket(SSL *ssl, SSL_SESSION *session) {
    struct tally *own = SSL_get_app_data(ssl);
    if (own->ticket) SSL_SESSION_free(own->ticket);
    own->ticket = session;
    return 1;
}

/* Whether an answer with status 200 came whole. */
static int ask(SSL *ssl) {
    char answer[16384];
    size_t have = 0;
    struct head head;
    if (SSL_write(ssl, request, (int)request_size) != (int)request_size) return 0;
    for (;;) {
        int got = SSL_read(ssl, answer + have, (int)(sizeof answer - have));
        if (got <= 0) return 0;
        have += (size_t)got;
        int whole = parse_head(answer, have, &head);
        if (whole < 0) return 0;
        if (whole && have >= head.size + head.body) return head.status == 200;
    }
}

static void *run(void *argument) {
    struct tally *own = argument;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context) die("SSL_CTX_new");
    if (suites && !SSL_CTX_set_ciphersuites(context, suites)) die("SSL_CTX_set_ciphersuites");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_ticket);
    for (; now_ns() < until; own->due += (int64_t)gap) {
        struct timespec when = {own->due / 1000000000, own->due % 1000000000};
        if (gap > 0) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
        int fd = dial(port);
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        SSL_set_app_data(ssl, own);
        SSL_set_tlsext_host_name(ssl, "api.example.com");
        if (resume && own->ticket) SSL_set_session(ssl, own->ticket);
        if (fd >= 0 && SSL_connect(ssl) == 1 && ask(ssl)) {
            own->made++;
            own->resumed += SSL_session_reused(ssl);
        } else {
            own->errors++;
        }
        SSL_shutdown(ssl);
        SSL_free(ssl);
        if (fd >= 0) close(fd);
    }
    return NULL;
}

int main(int count, char **words) {
    if (count != 7 && count != 8) {
        fprintf(stderr, "handshake PORT THREADS SECONDS RATE RESUME REQUEST [SUITES]\n");
        return 2;
    }
    port = atoi(words[1]);
    int threads = atoi(words[2]);
    double seconds = atof(words[3]);
    double rate = atof(words[4]);
    if (rate > 0) gap = 1e9 * threads / rate;
    resume = atoi(words[5]);
    request = load_request(words[6], &request_size);
    suites = words[7];
    int64_t start = now_ns();
    until = start + (int64_t)(seconds * 1e9);
    struct tally *all = calloc((size_t)threads, sizeof *all), sum = {0};
    if (!all) die("calloc");
    for (int i = 0; i < threads; i++) {
        all[i].due = start + (int64_t)(gap * i / threads);
        if (pthread_create(&all[i].thread, NULL, run, &all[i])) die("pthread_create");
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(all[i].thread, NULL);
        sum.made += all[i].made;
        sum.resumed += all[i].resumed;
        sum.errors += all[i].errors;
    }
    printf("{\"made\": %ld, \"resumed\": %ld, \"errors\": %ld, \"seconds\": %.3f}\n", sum.made, sum.resumed, sum.errors,
           (double)(now_ns() - start) / 1e9);
    return 0;
}
