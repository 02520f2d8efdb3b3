/* A client for benchmarks/origin.py that costs next to nothing: it shares the machine with the server.
 *
 *     origin_load PORT CONNECTIONS REQUESTS PATH HEADERS FILE_BYTES RANGE_BYTES
 *
 * One thread, one epoll loop, keep-alive, one request at a time on each connection, REQUESTS of them in all.
 * With RANGE_BYTES each asks for a random range of that size (0: as HEADERS say). Bodies are dropped in the
 * kernel (MSG_TRUNC, tcp(7)), so they cost no copy. Prints: seconds, bytes of body, p50 and p99 of the time
 * from a request to the last byte of its response in microseconds, and the sum of the statuses.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 16384 };

struct connection {
    int fd;
    size_t filled;
    int64_t left; /* Bytes of the body still to come; -1 while the head is read. */
    double asked;
    char head[HEAD_BYTES];
};

static const char *path, *headers;
static long requests_left, file_bytes, range_bytes, done, statuses;
static int64_t body_bytes;
static double *latencies;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "origin_load: %s\n", what);
    exit(1);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int ask(struct connection *c) {
    char request[4096], range[96] = "";
    if (!requests_left) return 0;
    requests_left--;
    if (range_bytes) {
        long first = (long)(drand48() * (double)(file_bytes - range_bytes));
        snprintf(range, sizeof range, "Range: bytes=%ld-%ld\r\n", first, first + range_bytes - 1);
    }
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: bench\r\n%s%s\r\n", path, headers, range);
    c->filled = 0;
    c->left = -1;
    c->asked = now();
    if (write(c->fd, request, (size_t)size) != size) fail("a request could not be sent");
    return 1;
}

/* Returns 0 when this connection has nothing more to do. */
static int finish(struct connection *c) {
    latencies[done++] = now() - c->asked;
    return ask(c);
}

static int read_head(struct connection *c) {
    ssize_t got = recv(c->fd, c->head + c->filled, HEAD_BYTES - 1 - c->filled, MSG_DONTWAIT);
    if (got < 0) return 1;
    if (!got) fail("the server closed the connection");
    c->filled += (size_t)got;
    c->head[c->filled] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return 1;
    long status = strtol(c->head + 9, NULL, 10);
    statuses += status;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->left = length && length < end && status != 304 ? strtoll(length + 17, NULL, 10) : 0;
    body_bytes += c->left;
    c->left -= (int64_t)(c->filled - (size_t)(end + 4 - c->head));
    return c->left ? 1 : finish(c);
}

static int drop_body(struct connection *c) {
    size_t most = c->left < (4 << 20) ? (size_t)c->left : 4 << 20;
    ssize_t got = recv(c->fd, NULL, most, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0) return 1;
    if (!got) fail("the server closed the connection");
    c->left -= got;
    return c->left ? 1 : finish(c);
}

int main(int argc, char **argv) {
    if (argc != 8) fail("PORT CONNECTIONS REQUESTS PATH HEADERS FILE_BYTES RANGE_BYTES");
    int count = atoi(argv[2]), active = 0;
    long requests = requests_left = atol(argv[3]);
    path = argv[4], headers = argv[5], file_bytes = atol(argv[6]), range_bytes = atol(argv[7]);
    latencies = calloc((size_t)requests, sizeof *latencies);
    struct connection *all = calloc((size_t)count, sizeof *all);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    srand48(7);
    int poll = epoll_create1(0), one = 1;
    for (int i = 0; i < count; i++) {
        all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(all[i].fd, (struct sockaddr *)&address, sizeof address)) fail("cannot connect");
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    double began = now();
    for (int i = 0; i < count; i++) active += ask(&all[i]);
    while (active) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, 30000);
        if (ready <= 0) fail("no answer in 30 s");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!(c->left < 0 ? read_head(c) : drop_body(c))) active--;
        }
    }
    double wall = now() - began;
    qsort(latencies, (size_t)done, sizeof *latencies, ascending);
    printf("%.6f %lld %.1f %.1f %ld\n", wall, (long long)body_bytes, latencies[done / 2] * 1e6,
           latencies[done * 99 / 100] * 1e6, statuses);
}
