/* A load generator for DERP relays: one thread, epoll, plain TCP or TLS, windowed or paced.
 *
 * usage: load PORT TLS SIZE SENDERS WINDOW RATE FLAGS SECONDS PID < clients
 *
 * Senders and as many receivers connect with fast start. Each sender keeps WINDOW packets of SIZE bytes in
 * flight (RATE 0), or all senders together send RATE packets a second, those of each 200 us at once. FLAGS: 1 =
 * every sender writes to every receiver in turn (else to its own), 2 = one write (one TLS record) a packet.
 *
 * stdin: for each client its public key (32 bytes), a length (4, big-endian) and its ClientInfo frame, so the
 * NaCl part of the handshake stays with whoever runs this. stdout: one JSON object; PID's CPU time is taken
 * from /proc between the same two moments as the packets are counted. Every frame's type, length and source are
 * checked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    KEY = 32,
    HEAD = 5,
    MAX_CLIENTS = 512,
    MAX_INFO = 4096,
    IN_BYTES = 256 * 1024,
    OUT_BYTES = 512 * 1024,
    MAX_BATCH = 64,     /* packets of one sender in one write */
    MAX_LATENCY = 1 << 20, /* microseconds, the last one stands for more */
    TICK_NS = 200 * 1000,
    WARM_UP_NS = 300 * 1000 * 1000,
    STALL_NS = 250 * 1000 * 1000, /* windowed packets not back by then count as lost */
    FAN_OUT = 1,
    SINGLE = 2,
};

struct client {
    int fd;
    SSL *ssl;
    uint8_t key[KEY];
    uint8_t info[MAX_INFO];
    uint32_t info_len;
    uint8_t *in, *out;
    size_t in_len, out_at, out_len;
    uint32_t in_flight, next;
    uint64_t sent, heard_ns;
    int polls_out;
};

static struct client clients[MAX_CLIENTS];
static uint32_t latency[MAX_LATENCY];
static uint64_t delivered, bad, lost;
static int senders, size, window, flags, epoll_fd;
static double rate;

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu_seconds(int pid) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(line, sizeof line, file)) die(path);
    fclose(file);
    unsigned long user = 0, system = 0;
    char *rest = strrchr(line, ')');
    if (!rest || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) die(path);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double own_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put_u32(uint8_t *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, 4);
}

static uint32_t get_u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

/* -1: nothing now, 0: the relay left. */
static ssize_t receive(struct client *c, uint8_t *into, size_t room) {
    if (!c->ssl) {
        ssize_t n = recv(c->fd, into, room, 0);
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? -1 : n < 0 ? 0 : n;
    }
    int n = SSL_read(c->ssl, into, (int)room);
    if (n > 0) return n;
    return SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ ? -1 : 0;
}

static ssize_t transmit(struct client *c, const uint8_t *data, size_t length) {
    if (!c->ssl) {
        ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? -1 : n < 0 ? 0 : n;
    }
    int n = SSL_write(c->ssl, data, (int)length);
    if (n > 0) return n;
    int why = SSL_get_error(c->ssl, n);
    return why == SSL_ERROR_WANT_WRITE || why == SSL_ERROR_WANT_READ ? -1 : 0;
}

static void receive_exactly(struct client *c, uint8_t *into, size_t length) {
    while (length) {
        ssize_t n = receive(c, into, length);
        if (n <= 0) die("the relay closed during the handshake");
        into += n;
        length -= (size_t)n;
    }
}

static void read_client(struct client *c) {
    uint8_t length[4];
    if (fread(c->key, 1, KEY, stdin) != KEY || fread(length, 1, 4, stdin) != 4) die("stdin");
    c->info_len = get_u32(length);
    if (c->info_len > MAX_INFO || fread(c->info, 1, c->info_len, stdin) != c->info_len) die("stdin");
    c->in = malloc(IN_BYTES);
    c->out = malloc(OUT_BYTES);
    if (!c->in || !c->out) die("memory");
}

static void join(struct client *c, int port, SSL_CTX *context) {
    static const char request[] =
        "GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (context) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        if (SSL_connect(c->ssl) != 1) die("TLS handshake");
    }
    memcpy(c->out, request, sizeof request - 1);
    memcpy(c->out + sizeof request - 1, c->info, c->info_len);
    if (transmit(c, c->out, sizeof request - 1 + c->info_len) <= 0) die("hello");
    for (int kind = 0; kind != 3;) { /* ServerKey, then ServerInfo */
        receive_exactly(c, c->in, HEAD);
        kind = c->in[0];
        if (get_u32(c->in + 1) > IN_BYTES - HEAD) die("a frame too large");
        receive_exactly(c, c->in + HEAD, get_u32(c->in + 1));
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void poll_out(struct client *c, int on) {
    if (c->polls_out == on) return;
    c->polls_out = on;
    struct epoll_event event = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void flush(struct client *c) {
    size_t frame = (size_t)(HEAD + KEY + size);
    while (c->out_at < c->out_len) {
        size_t length = c->out_len - c->out_at;
        if (flags & SINGLE) length = frame - c->out_at % frame;
        ssize_t n = transmit(c, c->out + c->out_at, length);
        if (n == 0) die("the relay closed a sender");
        if (n < 0) {
            poll_out(c, 1);
            return;
        }
        c->out_at += (size_t)n;
    }
    c->out_at = c->out_len = 0;
    poll_out(c, 0);
}

static void add_packet(struct client *c, uint64_t now) {
    uint32_t self = (uint32_t)(c - clients);
    struct client *to = &clients[senders + (flags & FAN_OUT ? c->next++ % (uint32_t)senders : self)];
    uint8_t *at = c->out + c->out_len;
    at[0] = 4;
    put_u32(at + 1, (uint32_t)(KEY + size));
    memcpy(at + HEAD, to->key, KEY);
    memcpy(at + HEAD + KEY, &now, 8);
    put_u32(at + HEAD + KEY + 8, self);
    c->out_len += (size_t)(HEAD + KEY + size);
    c->in_flight++;
    c->sent++;
}

static void send_due(struct client *c, uint64_t now, uint64_t start) {
    if (c->out_len) return; /* the last batch is not out yet */
    uint64_t count;
    if (rate > 0) {
        uint64_t due = (uint64_t)(rate / senders * (double)(now - start) / 1e9);
        count = due > c->sent ? due - c->sent : 0;
    } else {
        if (c->in_flight && now - c->heard_ns > STALL_NS) {
            lost += c->in_flight;
            c->in_flight = 0;
            c->heard_ns = now;
        }
        count = c->in_flight < (uint32_t)window ? (uint64_t)window - c->in_flight : 0;
    }
    if (count > MAX_BATCH) count = MAX_BATCH;
    while (count--) add_packet(c, now);
    flush(c);
}

static void count_packet(const uint8_t *payload, uint32_t length, uint64_t now) {
    uint32_t from = length == (uint32_t)(KEY + size) ? get_u32(payload + KEY + 8) : UINT32_MAX;
    if (from >= (uint32_t)senders || memcmp(payload, clients[from].key, KEY)) {
        bad++;
        return;
    }
    uint64_t sent_ns, micros;
    memcpy(&sent_ns, payload + KEY, 8);
    micros = (now - sent_ns) / 1000;
    latency[micros < MAX_LATENCY ? micros : MAX_LATENCY - 1]++;
    delivered++;
    if (clients[from].in_flight) clients[from].in_flight--;
    clients[from].heard_ns = now;
}

static void take(struct client *c) {
    for (int reads = 0; reads < (c->ssl ? 16 : 1); reads++) { /* TLS gives one record at a time */
        ssize_t n = receive(c, c->in + c->in_len, IN_BYTES - c->in_len);
        if (n == 0) die("the relay closed a client");
        if (n < 0) return;
        c->in_len += (size_t)n;
        uint64_t now = now_ns();
        size_t at = 0;
        while (c->in_len - at >= HEAD) {
            uint32_t length = get_u32(c->in + at + 1);
            if (length > IN_BYTES - HEAD) die("a frame too large");
            if (c->in_len - at < HEAD + length) break;
            if (c->in[at] == 5) count_packet(c->in + at + HEAD, length, now);
            else if (c->in[at] != 6) bad++;
            at += HEAD + length;
        }
        memmove(c->in, c->in + at, c->in_len - at);
        c->in_len -= at;
    }
}

static void run(uint64_t until, uint64_t start, int timer) {
    struct epoll_event events[64];
    int due = 1; /* paced: at each tick; windowed: always */
    for (uint64_t now = now_ns(); now < until; now = now_ns()) {
        for (int i = 0; due && i < senders; i++) send_due(&clients[i], now, start);
        due = rate <= 0;
        int pending = 0;
        for (int i = senders; i < 2 * senders; i++) pending |= clients[i].ssl && SSL_pending(clients[i].ssl);
        int count = epoll_wait(epoll_fd, events, 64, pending ? 0 : 50);
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            uint64_t ticks;
            if (!c) {
                if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) die("timer");
                due = 1;
                continue;
            }
            if (events[i].events & EPOLLOUT) flush(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(c);
        }
        for (int i = senders; pending && i < 2 * senders; i++)
            if (SSL_pending(clients[i].ssl)) take(&clients[i]);
    }
}

static uint32_t percentile(double share) {
    uint64_t wanted = (uint64_t)((double)delivered * share), seen = 0;
    for (uint32_t micros = 0; micros < MAX_LATENCY; micros++)
        if ((seen += latency[micros]) > wanted) return micros;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 10) {
        fprintf(stderr, "usage: load PORT TLS SIZE SENDERS WINDOW RATE FLAGS SECONDS PID < clients\n");
        return 2;
    }
    int port = atoi(argv[1]), tls = atoi(argv[2]), pid = atoi(argv[9]);
    size = atoi(argv[3]);
    senders = atoi(argv[4]);
    window = atoi(argv[5]);
    rate = atof(argv[6]);
    flags = atoi(argv[7]);
    double seconds = atof(argv[8]);
    if (size < 16 || size > 65536 || senders < 1 || 2 * senders > MAX_CLIENTS ||
        (size_t)(HEAD + KEY + size) * MAX_BATCH > OUT_BYTES) {
        fprintf(stderr, "load: SIZE or SENDERS out of range\n");
        return 2;
    }
    SSL_CTX *context = NULL;
    if (tls) {
        context = SSL_CTX_new(TLS_client_method());
        /* the same cipher with every relay */
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context, 1);
        SSL_CTX_set_default_read_buffer_len(context, 64 * 1024);
    }
    epoll_fd = epoll_create1(0);
    for (int i = 0; i < 2 * senders; i++) read_client(&clients[i]);
    for (int i = 2 * senders; i--;) join(&clients[i], port, context); /* receivers first */
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (rate > 0) {
        struct itimerspec tick = {{0, TICK_NS}, {0, TICK_NS}};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
        timerfd_settime(timer, 0, &tick, NULL);
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event);
    }
    uint64_t start = now_ns();
    for (int i = 0; i < senders; i++) clients[i].heard_ns = start;
    run(start + WARM_UP_NS, start, timer);
    delivered = lost = 0;
    memset(latency, 0, sizeof latency);
    uint64_t sent = 0, begun = now_ns();
    for (int i = 0; i < senders; i++) sent -= clients[i].sent;
    double cpu = cpu_seconds(pid), own = own_seconds();
    run(begun + (uint64_t)(seconds * 1e9), start, timer);
    cpu = cpu_seconds(pid) - cpu;
    own = own_seconds() - own;
    double taken = (double)(now_ns() - begun) / 1e9;
    for (int i = 0; i < senders; i++) sent += clients[i].sent;
    printf("{\"seconds\":%.6f,\"sent\":%llu,\"delivered\":%llu,\"lost\":%llu,\"bad\":%llu,\"cpu\":%.3f,\"own\":%.3f,\"p50\":%u,\"p99\":%u}\n",
           taken, (unsigned long long)sent, (unsigned long long)delivered, (unsigned long long)lost,
           (unsigned long long)bad, cpu, own, percentile(0.5), percentile(0.99));
    return 0;
}
