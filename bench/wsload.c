/* wsload - cheap epoll WebSocket pub/sub load generator.  One file, no dependencies.
 *   gcc -O2 -Wall -o wsload wsload.c -lm
 * docs/performance/method.rst has the options and what every printed number means. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

static void die(const char *f, ...) {
    va_list a; va_start(a, f); fprintf(stderr, "wsload: "); vfprintf(stderr, f, a); fputc('\n', stderr); exit(2);
}
static inline u64 now_ns(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (u64)t.tv_sec * 1000000000ull + t.tv_nsec;
}
static u32 rs = 0x9e3779b9;
static inline u32 rnd(void) { rs ^= rs << 13; rs ^= rs >> 17; rs ^= rs << 5; return rs; }

/* ---------- options ---------- */
enum { M_FAN, M_ECHO, M_IDLE };
static int mode = M_FAN, nsub = 100, ntopic = 1, npub = 1, port = 0, psize = 128, window = 4, warm = 20, conc = 64;
static int acks = 0, settle_ms = 500, binary = 0, partner = 0, verbose = 0;
static int burst = 0, per = 1, stride = 1, first = 0, spread = 0, farewell = 0, announce = 0;
static const char *pong = NULL; static int npong = 0;
static char **each = NULL; static int neach = 0;
static double rate = 0, duration = 5, hold = 0, drain_s = 3, stall_s = 2;
static long count = 0;
static const char *host = "127.0.0.1", *path = "/", *pub_path = NULL, *subproto = NULL, *http_pub = NULL, *label = "", *hosthdr = NULL;
static const char *http_ctype = "text/plain";
static int http_port = 0;
typedef struct { char *p; int n; int at; } tmpl;
static tmpl subs[16], pubi[16], pubt; static int nsubs = 0, npubi = 0;
static char *headers[32]; static int nheaders = 0;
static char *rep_in[8], *rep_out[8]; static int nrep = 0;
static int pids[64], npids = 0;

/* "@K:text" = hold this frame back until the connection has received K frames.  \n \r \t \\ \xHH are decoded. */
static tmpl mk(const char *s) {
    tmpl t; t.at = 0;
    if (s[0] == '@' && isdigit((u8)s[1])) { char *e; t.at = strtol(s + 1, &e, 10); if (*e != ':') die("bad @K: template"); s = e + 1; }
    t.p = malloc(strlen(s) + 1); t.n = 0;
    for (; *s; s++) {
        if (*s != '\\') { t.p[t.n++] = *s; continue; }
        s++;
        switch (*s) {
        case 'n': t.p[t.n++] = '\n'; break; case 'r': t.p[t.n++] = '\r'; break; case 't': t.p[t.n++] = '\t'; break;
        case '\\': t.p[t.n++] = '\\'; break; case '"': t.p[t.n++] = '\\'; t.p[t.n++] = '"'; break;
        case 'x': { char b[3] = {s[1], s[2], 0}; t.p[t.n++] = (char)strtol(b, NULL, 16); s += 2; break; }
        default: die("bad escape in template");
        }
    }
    t.p[t.n] = 0; return t;
}
/* --each FILE: line number d of the file stands for %L of connection d, so that each has its own token. */
static void read_each(const char *name) {
    FILE *f = fopen(name, "r"); if (!f) die("--each %s: %s", name, strerror(errno));
    char *line = NULL; size_t cap = 0; ssize_t n;
    while ((n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        if ((neach & (neach - 1)) == 0) each = realloc(each, (neach ? neach * 2 : 1) * sizeof *each);
        each[neach++] = strdup(line);
    }
    free(line); fclose(f); if (!neach) die("--each %s: no lines", name);
}
/* (both from --first on) %d connection index, %m partner index, %t topic index, %p payload, %l payload length, %T the connection's topics as
 * "t1","t2", %L its line of --each, %% ; zero padding %04d */
static int expand(char *o, const tmpl *t, int d, int m, int top, const char *pay) {
    char *s = o; const char *p = t->p, *e = t->p + t->n;
    for (; p < e; p++) {
        if (*p != '%') { *s++ = *p; continue; }
        int w = 0; p++;
        while (p < e && isdigit((u8)*p)) w = w * 10 + (*p++ - '0');
        switch (p < e ? *p : 0) {
        case 'd': s += sprintf(s, "%0*d", w, d + first); break;
        case 'm': s += sprintf(s, "%0*d", w, m + first); break;
        case 't': s += sprintf(s, "%0*d", w, top); break;
        case 'l': s += sprintf(s, "%0*d", w, psize); break;
        case 'p': if (!pay) die("%%p outside a publish template"); memcpy(s, pay, psize); s += psize; break;
        case 'T': for (int j = 0; j < per; j++) s += sprintf(s, "%s\"t%d\"", j ? "," : "", (int)(((long)d * per + j) % ntopic)); break;
        case 'L': { if (!neach) die("%%L without --each"); const char *q = each[(d + first) % neach]; int k = strlen(q); memcpy(s, q, k); s += k; break; }
        case '%': *s++ = '%'; break;
        default: die("bad %% in template");
        }
    }
    return s - o;
}

/* ---------- connections ---------- */
enum { C_NEW, C_CONNECTING, C_HS, C_OPEN, C_DEAD };
enum { K_SUB, K_PUB, K_HTTP };
typedef struct {
    int fd, idx, topic; u8 state, kind, ready, wantw, busy, bye; int frames, sent; u64 sent_at;
    u8 *lb; int ln, lcap;          /* unparsed tail of the last read */
    u8 *ob; int on, ocap;          /* unsent output */
    char carry[48]; int cn;        /* marker cut in two by a frame boundary */
    u32 expect; u32 eseq;
} conn;
static conn *C; static int nconn, ep;
static u64 bytes_in = 0, frames_in = 0, recvs = 0, deliveries = 0, gaps = 0, dups = 0, ooo = 0, closed_early = 0, http_ok = 0, http_bad = 0, pings = 0, connect_fail = 0;
static u64 farewells = 0; static int corked = 0, last_close = 0;
static int measuring = 0; static int n_open = 0, n_ready = 0;
static u8 rb[1 << 20];

static void set_ev(conn *c, int w) {
    struct epoll_event e = {.events = EPOLLIN | (w ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e); c->wantw = w;
}
static void kill_conn(conn *c) {
    if (c->state == C_DEAD) return;
    if (c->bye == 2) farewells++; else if (c->state == C_OPEN) closed_early++; else connect_fail++;
    if (verbose) fprintf(stderr, "conn %d (kind %d) lost in state %d after %d frames\n", c->idx, c->kind, c->state, c->frames);
    close(c->fd); c->state = C_DEAD;
}
static void flush_out(conn *c) {
    while (c->on) {
        ssize_t k = send(c->fd, c->ob, c->on, MSG_NOSIGNAL);
        if (k < 0) { if (errno == EAGAIN) { if (!c->wantw) set_ev(c, 1); return; } kill_conn(c); return; }
        memmove(c->ob, c->ob + k, c->on - k); c->on -= k;
    }
    if (c->wantw) set_ev(c, 0);
}
static void raw_send(conn *c, const void *p, int n) {
    if (c->state == C_DEAD) return;
    if (!c->on && !corked) {
        ssize_t k = send(c->fd, p, n, MSG_NOSIGNAL);
        if (k == n) return;
        if (k < 0) { if (errno != EAGAIN) { kill_conn(c); return; } k = 0; }
        p = (const char *)p + k; n -= k;
    }
    if (c->on + n > c->ocap) { c->ocap = (c->on + n) * 2; c->ob = realloc(c->ob, c->ocap); }
    memcpy(c->ob + c->on, p, n); c->on += n;
    if (!c->wantw && !corked) set_ev(c, 1);
}
static void ws_send(conn *c, int op, const char *p, int n) {
    static u8 b[1 << 17]; int h;
    if (n > (int)sizeof b - 16) die("frame too large");
    b[0] = 0x80 | op;
    if (n < 126) { b[1] = 0x80 | n; h = 2; }
    else if (n < 65536) { b[1] = 0x80 | 126; b[2] = n >> 8; b[3] = n; h = 4; }
    else { b[1] = 0x80 | 127; for (int i = 0; i < 8; i++) b[2 + i] = (u64)n >> (56 - 8 * i); h = 10; }
    u32 k = rnd(); memcpy(b + h, &k, 4); h += 4;
    u8 *o = b + h; int i = 0;
    for (; i + 4 <= n; i += 4) { u32 v; memcpy(&v, p + i, 4); v ^= k; memcpy(o + i, &v, 4); }
    for (; i < n; i++) o[i] = p[i] ^ ((u8 *)&k)[i & 3];
    raw_send(c, b, h + n);
}

/* ---------- payload: "~T" ts(16 hex ns) gseq(8 hex) tseq(8 hex) then 'x' padding ---------- */
#define MARK 34
static const char HX[] = "0123456789abcdef";
static inline void puthex(char *o, u64 v, int n) { while (n--) { o[n] = HX[v & 15]; v >>= 4; } }
static u8 hv[256];
static inline u64 gethex(const char *p, int n) { u64 v = 0; while (n--) v = v << 4 | hv[(u8)*p++]; return v; }
static char *paybuf;
static const char *mkpay(u32 g, u32 t) {
    paybuf[0] = '~'; paybuf[1] = 'T'; puthex(paybuf + 2, now_ns(), 16); puthex(paybuf + 18, g, 8); puthex(paybuf + 26, t, 8);
    return paybuf;
}

/* ---------- latency histogram (log-linear, 64 steps per octave) ---------- */
#define HB (64 * 48)
typedef struct { u64 b[HB], n, max; double sum; } hist;
static hist Hd, Hf;
static void hadd(hist *h, u64 v) {
    h->n++; h->sum += v; if (v > h->max) h->max = v;
    int i; if (v < 64) i = v; else { int e = 63 - __builtin_clzll(v); i = ((e - 5) << 6) | ((v >> (e - 6)) & 63); }
    if (i >= HB) i = HB - 1;
    h->b[i]++;
}
static double hq(hist *h, double q) {
    u64 want = (u64)(q * h->n + 0.5), c = 0; if (want < 1) want = 1;
    for (int i = 0; i < HB; i++) { c += h->b[i]; if (c >= want && h->n) { if (i < 64) return i / 1e3; int e = (i >> 6) + 5; u64 lo = (64ull + (i & 63)) << (e - 6); u64 v = lo + (1ull << (e - 6)) / 2; return (v > h->max ? h->max : v) / 1e3; } }
    return 0;
}

/* ---------- accounting ---------- */
#define RING (1 << 16)
static int *remain; static u64 *pubts; static int *subs_in; static u32 *tseq;
static u32 gnext = 0; static u32 gbase = 0; static int outstanding = 0; static u64 published = 0, lost = 0, last_progress = 0;
static u64 echo_sent = 0; static int stop_sending = 0; static int rrtopic = 0, rrconn = 0;
static conn *PB; /* first publisher */

static void echo_fire(conn *c) {
    static char o[1 << 17];
    int n = expand(o, &pubt, c->idx, partner ? (c->idx ^ 1) : c->idx, c->topic, mkpay(c->idx, c->eseq++));
    c->busy = 1; c->sent_at = now_ns(); echo_sent++; outstanding++;
    ws_send(c, binary ? 2 : 1, o, n);
}
static void pub_fire(void) {
    static char o[1 << 17];
    int t = rrtopic; rrtopic = (rrtopic + stride) % ntopic;
    conn *c = PB + (npub > 1 ? t % npub : 0);
    u32 g = gnext++; int s = g & (RING - 1);
    if (remain[s] > 0) { lost += remain[s]; if (outstanding) outstanding--; }
    remain[s] = subs_in[t]; outstanding++; published++;
    const char *p = mkpay(g, tseq[t]++); pubts[s] = now_ns();
    if (http_pub) {
        tmpl pt = {(char *)http_pub, strlen(http_pub), 0}; char pa[512];
        pa[expand(pa, &pt, c->idx, 0, t, NULL)] = 0;
        char body[1 << 16]; int bn;
        if (pubt.p) bn = expand(body, &pubt, c->idx, 0, t, p); else { memcpy(body, p, psize); bn = psize; }
        int n = sprintf(o, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", pa, hosthdr ? hosthdr : host, http_ctype, bn);
        memcpy(o + n, body, bn); raw_send(c, o, n + bn);
    } else { int n = expand(o, &pubt, c->idx, 0, t, p); ws_send(c, binary ? 2 : 1, o, n); }
}
static inline void mark(conn *c, const char *p, u64 t) {
    u64 ts = gethex(p + 2, 16); u32 g = gethex(p + 18, 8), q = gethex(p + 26, 8);
    deliveries++; last_progress = t;
    if (mode == M_ECHO) {
        if (measuring) hadd(&Hd, t - ts);
        if ((int)g >= nconn) return;
        conn *s = &C[g];
        if (q < s->expect) { dups++; return; }
        if (q > s->expect) { gaps += q - s->expect; }
        s->expect = q + 1;
        if (s->busy) { s->busy = 0; outstanding--; }
        if (!stop_sending && rate <= 0) echo_fire(s);
        return;
    }
    int sl = g & (RING - 1);
    if (per > 1) { /* one publisher numbers all it sends: any order but rising is a fault */
        if (g >= c->expect) c->expect = g + 1; else ooo++;
    } else if (q == c->expect) c->expect++;
    else if (npub <= ntopic) { if (q > c->expect) { gaps += q - c->expect; c->expect = q + 1; } else { /* late or repeated */ ooo++; } }
    if (measuring && g >= gbase) hadd(&Hd, t - ts);
    if (gnext - g <= RING && remain[sl] > 0) { if (--remain[sl] == 0) { outstanding--; if (measuring && g >= gbase) hadd(&Hf, t - pubts[sl]); } }
    else dups++;
}
static void scan(conn *c, const char *p, int n, u64 t) {
    const char *e = p + n;
    if (c->cn) {
        int need = MARK - c->cn; if (need > n) need = n;
        memcpy(c->carry + c->cn, p, need); c->cn += need; p += need;
        if (c->cn < 2 || c->carry[1] == 'T') { if (c->cn < MARK) return; mark(c, c->carry, t); }
        c->cn = 0;
    }
    while (p < e) {
        p = memchr(p, '~', e - p); if (!p) return;
        if (p + 1 < e && p[1] != 'T') { p++; continue; }
        if (e - p < MARK) { c->cn = e - p; memcpy(c->carry, p, c->cn); return; }
        mark(c, p, t); p += psize <= e - p ? psize : MARK;
    }
}

/* ---------- protocol ---------- */
static void push_init(conn *c) {
    static char o[1 << 16];
    tmpl *T = c->kind == K_SUB ? subs : pubi; int n = c->kind == K_SUB ? nsubs : npubi;
    while (c->sent < n && c->frames >= T[c->sent].at) {
        int k = expand(o, &T[c->sent], c->idx, c->idx ^ 1, c->topic, NULL); c->sent++;
        ws_send(c, binary ? 2 : 1, o, k); if (c->state == C_DEAD) return;
    }
    if (!c->ready && c->sent == n && (c->kind != K_SUB || c->frames >= acks)) { c->ready = 1; n_ready++; }
}
static void on_frame(conn *c, int op, const char *p, int n, u64 t) {
    if (op == 9) { pings++; ws_send(c, 10, p, n < 126 ? n : 125); return; }
    if (op == 10) return;
    if (op == 8) {
        if (c->bye) { c->bye = 2; return; } /* the server answers our Close; it ends the connection */
        last_close = n >= 2 ? (u8)p[0] << 8 | (u8)p[1] : 1005;
        if (verbose) fprintf(stderr, "close frame on %d: %.*s\n", c->idx, n > 2 ? n - 2 : 0, p + 2);
        kill_conn(c); return;
    }
    c->frames++; frames_in++;
    if (verbose > 1) fprintf(stderr, "conn %d kind %d op %d: %.*s\n", c->idx, c->kind, op, n, p);
    int was_ready = c->ready; if (!was_ready) push_init(c);
    for (int i = 0; i < nrep; i++) if (n == (int)strlen(rep_in[i]) && !memcmp(p, rep_in[i], n)) ws_send(c, binary ? 2 : 1, rep_out[i], strlen(rep_out[i]));
    if (pong && was_ready && n >= npong && !memcmp(p, pong, npong)) { /* the answer to this connection's own Ping */
        deliveries++; last_progress = t;
        if (!c->busy) { dups++; return; }
        if (measuring) hadd(&Hd, t - c->sent_at);
        c->busy = 0; outstanding--;
        if (!stop_sending && rate <= 0) echo_fire(c);
        return;
    }
    if (c->kind == K_SUB && mode != M_IDLE) scan(c, p, n, t);
}
static void start_hs(conn *c) {
    char b[4096]; int n;
    if (c->kind == K_HTTP) { c->state = C_OPEN; n_open++; c->ready = 1; n_ready++; return; }
    const char *pa0 = c->kind == K_PUB && pub_path ? pub_path : path; tmpl pt = {(char *)pa0, strlen(pa0), 0};
    char pa[1024]; pa[expand(pa, &pt, c->idx, c->idx ^ 1, c->topic, NULL)] = 0;
    u8 k[16]; for (int i = 0; i < 16; i++) k[i] = rnd();
    static const char B[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char key[25]; int o = 0;
    for (int i = 0; i < 15; i += 3) { u32 v = k[i] << 16 | k[i + 1] << 8 | k[i + 2]; for (int j = 3; j >= 0; j--) key[o++] = B[v >> (6 * j) & 63]; }
    key[o++] = B[k[15] >> 2]; key[o++] = B[(k[15] & 3) << 4]; key[o++] = '='; key[o++] = '='; key[o] = 0;
    n = sprintf(b, "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n", pa, hosthdr ? hosthdr : host, port, key);
    if (subproto) n += sprintf(b + n, "Sec-WebSocket-Protocol: %s\r\n", subproto);
    for (int i = 0; i < nheaders; i++) { tmpl ht = {headers[i], strlen(headers[i]), 0}; n += expand(b + n, &ht, c->idx, c->idx ^ 1, c->topic, NULL); n += sprintf(b + n, "\r\n"); }
    n += sprintf(b + n, "\r\n");
    c->state = C_HS; raw_send(c, b, n);
}
static void on_read(conn *c) {
    int base = c->ln; if (base) memcpy(rb, c->lb, base);
    ssize_t k = recv(c->fd, rb + base, sizeof rb - 1 - base, 0);
    if (k == 0) { kill_conn(c); return; }
    if (k < 0) { if (errno != EAGAIN && errno != EINTR) kill_conn(c); return; }
    if (measuring && c->kind == K_SUB) { bytes_in += k; recvs++; }
    u64 t = now_ns(); u8 *p = rb, *e = rb + base + k; c->ln = 0;
    if (c->kind == K_HTTP) { /* count status lines only */
        *e = 0;
        for (char *q = (char *)rb; (q = memmem(q, (char *)e - q, "HTTP/1.1 ", 9)); q += 9) { if (q[9] == '2') http_ok++; else { http_bad++; if (verbose) fprintf(stderr, "%.60s\n", q); } }
        return;
    }
    if (c->state == C_HS) {
        u8 *h = memmem(p, e - p, "\r\n\r\n", 4);
        if (!h) goto keep;
        if (memcmp(p, "HTTP/1.1 101", 12)) { if (connect_fail < 3) fprintf(stderr, "wsload: handshake refused: %.*s\n", (int)(h - p), p); kill_conn(c); return; }
        p = h + 4; c->state = C_OPEN; n_open++; push_init(c);
    }
    while (e - p >= 2) {
        int op = p[0] & 15, h = 2; u64 n = p[1] & 127;
        if (p[1] & 128) die("server sent a masked frame");
        if (n == 126) { if (e - p < 4) break; n = p[2] << 8 | p[3]; h = 4; }
        else if (n == 127) { if (e - p < 10) break; n = 0; for (int i = 0; i < 8; i++) n = n << 8 | p[2 + i]; h = 10; }
        if (n > sizeof rb - 64) die("frame of %llu bytes", (unsigned long long)n);
        if ((u64)(e - p) < h + n) break;
        on_frame(c, op, (char *)p + h, n, t);
        if (c->state == C_DEAD) return;
        p += h + n;
    }
keep:
    c->ln = e - p;
    if (c->ln) { if (c->ln > c->lcap) { c->lcap = c->ln * 2; c->lb = realloc(c->lb, c->lcap); } memcpy(c->lb, p, c->ln); }
}

/* ---------- connecting ---------- */
static struct sockaddr_in sa; static int next_conn = 0;
static void open_one(conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); if (c->fd < 0) die("socket: %s (ulimit -n?)", strerror(errno));
    int one = 1; setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = sa; if (c->kind == K_HTTP && http_port) a.sin_port = htons(http_port);
    if (spread) { /* many source addresses: the kernel is slow to find a free port where few are left */
        struct sockaddr_in b = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001u + ((u32)(getpid() % 200 + 1) << 8) + c->idx / 1000)};
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (void *)&b, sizeof b) < 0) die("bind: %s", strerror(errno));
    }
    c->state = C_CONNECTING; c->wantw = 1;
    if (connect(c->fd, (void *)&a, sizeof a) < 0 && errno != EINPROGRESS) die("connect: %s", strerror(errno));
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c}; epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}
static int tfd = -1;
static void pump(int timeout) {
    struct epoll_event ev[512]; int n = epoll_wait(ep, ev, 512, timeout);
    for (int i = 0; i < n; i++) {
        conn *c = ev[i].data.ptr;
        if (!c) { u64 x; if (read(tfd, &x, 8) < 0) {} continue; }
        if (c->state == C_DEAD) continue;
        if (c->state == C_CONNECTING) {
            int er = 0; socklen_t l = sizeof er; getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &er, &l);
            if (er) { if (connect_fail < 3) fprintf(stderr, "wsload: connect: %s\n", strerror(er)); kill_conn(c); continue; }
            if (!(ev[i].events & EPOLLOUT)) continue;
            set_ev(c, 0); start_hs(c); continue;
        }
        if (ev[i].events & EPOLLOUT) flush_out(c);
        if (c->state != C_DEAD && (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_read(c);
    }
}

/* ---------- server process accounting ---------- */
typedef struct { double cpu, user, sys; double rss, pss, anon; int procs, threads; } usage;
static int allp[4096], nall;
static void find_procs(void) {
    nall = 0; for (int i = 0; i < npids; i++) allp[nall++] = pids[i];
    static struct { int pid, pp; } tab[32768]; int n = 0;
    DIR *d = opendir("/proc"); struct dirent *de;
    while ((de = readdir(d))) if (isdigit((u8)de->d_name[0]) && n < 32768) {
        char f[300], b[1024]; snprintf(f, sizeof f, "/proc/%s/stat", de->d_name); FILE *fp = fopen(f, "r"); if (!fp) continue;
        if (fgets(b, sizeof b, fp)) { char *q = strrchr(b, ')'); int pp; char s; if (q && sscanf(q + 1, " %c %d", &s, &pp) == 2) { tab[n].pid = atoi(de->d_name); tab[n++].pp = pp; } }
        fclose(fp);
    }
    closedir(d);
    for (int i = 0; i < nall; i++) for (int j = 0; j < n; j++) if (tab[j].pp == allp[i] && nall < 4096) { int s = 0; for (int k = 0; k < nall; k++) s |= allp[k] == tab[j].pid; if (!s) allp[nall++] = tab[j].pid; }
}
static usage take(int mem) {
    usage u = {0}; char f[300], b[1024]; if (!npids) return u;
    find_procs(); double hz = sysconf(_SC_CLK_TCK);
    for (int i = 0; i < nall; i++) {
        double st = 0; FILE *fp; snprintf(f, sizeof f, "/proc/%d/stat", allp[i]); fp = fopen(f, "r"); if (!fp) continue;
        unsigned long long ut = 0, sy = 0; if (fgets(b, sizeof b, fp)) { char *q = strrchr(b, ')'); if (q) sscanf(q + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &ut, &sy); } fclose(fp);
        u.user += ut / hz; u.sys += sy / hz; u.procs++;
        snprintf(f, sizeof f, "/proc/%d/task", allp[i]); DIR *d = opendir(f); struct dirent *de;
        if (d) { while ((de = readdir(d))) if (isdigit((u8)de->d_name[0])) {
            char g[600]; snprintf(g, sizeof g, "/proc/%d/task/%s/schedstat", allp[i], de->d_name); FILE *sp = fopen(g, "r"); unsigned long long ns = 0;
            if (sp) { if (fscanf(sp, "%llu", &ns) == 1) st += ns / 1e9; fclose(sp); } u.threads++; }
            closedir(d); }
        double tick = (ut + sy) / hz; u.cpu += st > tick - 0.05 ? st : tick; /* schedstat is exact but forgets exited threads */
        if (mem) { snprintf(f, sizeof f, "/proc/%d/smaps_rollup", allp[i]); fp = fopen(f, "r"); if (fp) { while (fgets(b, sizeof b, fp)) { double k; if (sscanf(b, "Rss: %lf", &k) == 1) u.rss += k; else if (sscanf(b, "Pss: %lf", &k) == 1) u.pss += k; else if (sscanf(b, "Anonymous: %lf", &k) == 1) u.anon += k; /* less the file pages, which the kernel takes back as it likes */ } fclose(fp); } }
    }
    return u;
}
static double self_cpu(void) { struct rusage r; getrusage(RUSAGE_SELF, &r); return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6; }

static void pump(int timeout);
static void say_farewell(void) { /* Close on every connection, then wait until the server has closed them all */
    for (int i = 0; i < nconn; i++) if (C[i].state == C_OPEN) { C[i].bye = 1; ws_send(&C[i], 8, "\x03\xe8", 2); }
    u64 e = now_ns() + 15000000000ull; u64 want = 0;
    for (int i = 0; i < nconn; i++) want += C[i].bye > 0;
    while (farewells < want && now_ns() < e) pump(20);
}
static void quiesce(double sec) { u64 e = now_ns() + (u64)(sec * 1e9); while (now_ns() < e) { u64 r = e - now_ns(); pump(r > 20000000 ? 20 : (int)(r / 1000000) + 1); } }

int main(int ac, char **av) {
    static struct option L[] = {{"host",1,0,'h'},{"port",1,0,'p'},{"path",1,0,'a'},{"mode",1,0,'m'},{"subs",1,0,'n'},{"topics",1,0,'t'},{"pubs",1,0,'P'},
        {"sub",1,0,'s'},{"pub",1,0,'b'},{"pub-init",1,0,'i'},{"pub-path",1,0,'A'},{"http-pub",1,0,'H'},{"http-port",1,0,'O'},{"http-type",1,0,'y'},{"header",1,0,'e'},{"subprotocol",1,0,'o'},
        {"size",1,0,'S'},{"rate",1,0,'r'},{"window",1,0,'w'},{"duration",1,0,'d'},{"count",1,0,'c'},{"warmup",1,0,'u'},{"conc",1,0,'C'},{"ack",1,0,'k'},
        {"settle",1,0,'l'},{"pid",1,0,'I'},{"binary",0,0,'B'},{"partner",0,0,'R'},{"reply",1,0,'y'+128},{"hold",1,0,'x'},{"label",1,0,'L'},{"hosthdr",1,0,'q'},{"verbose",0,0,'v'},
        {"each",1,0,1001},{"pong",1,0,1002},{"burst",1,0,1003},{"per",1,0,1004},{"spread",0,0,1005},{"farewell",0,0,1006},{"announce",0,0,1007},{"stride",1,0,1008},{"first",1,0,1009},{0,0,0,0}};
    int o; while ((o = getopt_long(ac, av, "h:p:a:m:n:t:P:s:b:i:A:H:e:o:S:r:w:d:c:u:C:k:l:I:BRx:L:v", L, NULL)) != -1) switch (o) {
        case 'h': host = optarg; break; case 'p': port = atoi(optarg); break; case 'a': path = optarg; break;
        case 'm': mode = !strcmp(optarg, "fan") ? M_FAN : !strcmp(optarg, "echo") ? M_ECHO : !strcmp(optarg, "idle") ? M_IDLE : (die("mode fan|echo|idle"), 0); break;
        case 'n': nsub = atoi(optarg); break; case 't': ntopic = atoi(optarg); break; case 'P': npub = atoi(optarg); break;
        case 's': if (nsubs == 16) die("too many --sub"); subs[nsubs++] = mk(optarg); break; case 'i': if (npubi == 16) die("too many --pub-init"); pubi[npubi++] = mk(optarg); break;
        case 'b': pubt = mk(optarg); break; case 'A': pub_path = optarg; break; case 'H': http_pub = optarg; break; case 'O': http_port = atoi(optarg); break; case 'y': http_ctype = optarg; break;
        case 'e': if (nheaders == 32) die("too many --header"); headers[nheaders++] = optarg; break; case 'o': subproto = optarg; break; case 'S': psize = atoi(optarg); break;
        case 'r': rate = atof(optarg); break; case 'w': window = atoi(optarg); break; case 'd': duration = atof(optarg); break; case 'c': count = atol(optarg); break;
        case 'u': warm = atoi(optarg); break; case 'C': conc = atoi(optarg); break; case 'k': acks = atoi(optarg); break; case 'l': settle_ms = atoi(optarg); break;
        case 'I': for (char *q = strtok(optarg, ","); q && npids < 64; q = strtok(NULL, ",")) pids[npids++] = atoi(q); break;
        case 'B': binary = 1; break; case 'R': partner = 1; break; case 'x': hold = atof(optarg); break; case 'L': label = optarg; break; case 'q': hosthdr = optarg; break; case 'v': verbose++; break;
        case 'y' + 128: { char *eq = strchr(optarg, '='); if (!eq || nrep == 8) die("--reply IN=OUT"); *eq = 0; rep_in[nrep] = optarg; rep_out[nrep++] = eq + 1; break; }
        case 1001: read_each(optarg); break; case 1002: pong = optarg; npong = strlen(optarg); break; case 1003: window = burst = atoi(optarg); break;
        case 1004: per = atoi(optarg); break; case 1005: spread = 1; break; case 1006: farewell = 1; break; case 1007: announce = 1; break; case 1008: stride = atoi(optarg); break; case 1009: first = atoi(optarg); break;
        default: die("unknown option; docs/performance/method.rst has them"); }
    if (!port) die("--port is required");
    if (psize < MARK || psize > 60000) die("--size must be %d..60000", MARK);
    if (mode == M_FAN && !http_pub && !pubt.p) die("--pub TEMPLATE or --http-pub PATH is required");
    if (mode == M_ECHO && !pubt.p) die("--pub TEMPLATE is required");
    if (per < 1 || per > ntopic) die("--per must be 1 to --topics");
    if (per > 1 && npub > 1) die("--per needs a single publisher");
    if (partner && (nsub & 1)) die("--partner needs an even --subs");
    if (window > RING / 2) window = RING / 2;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 16; i++) { hv[(u8)HX[i]] = i; } for (int i = 10; i < 16; i++) hv['A' + i - 10] = i;
    sa.sin_family = AF_INET; sa.sin_port = htons(port); if (inet_pton(AF_INET, host, &sa.sin_addr) != 1) die("--host must be an IPv4 address");
    if (mode != M_FAN) npub = 0;
    nconn = nsub + npub; C = calloc(nconn + 1, sizeof *C); PB = C + nsub; ep = epoll_create1(0);
    paybuf = malloc(psize + 1); memset(paybuf, 'x', psize);
    remain = calloc(RING, sizeof *remain); pubts = calloc(RING, sizeof *pubts); subs_in = calloc(ntopic + 1, sizeof *subs_in); tseq = calloc(ntopic + 1, sizeof *tseq);
    for (int i = 0; i < nconn; i++) { C[i].idx = i; C[i].topic = i < nsub ? (int)((long)i * per % ntopic) : (i - nsub) % ntopic; C[i].kind = i < nsub ? K_SUB : http_pub ? K_HTTP : K_PUB; if (i < nsub) for (int j = 0; j < per; j++) subs_in[((long)i * per + j) % ntopic]++; }
    struct rlimit rl; getrlimit(RLIMIT_NOFILE, &rl); rl.rlim_cur = rl.rlim_max; setrlimit(RLIMIT_NOFILE, &rl);
    if ((int)rl.rlim_max < nconn + 16) die("need %d descriptors, hard limit is %d (ulimit -n)", nconn + 16, (int)rl.rlim_max);

    /* 1. connect, at most `conc` handshakes in flight */
    usage u0 = take(1); u64 t0 = now_ns(), tl = t0; int lastn = 0; double gc0 = self_cpu();
    while (n_ready + (int)connect_fail + (int)closed_early < nconn) {
        while (next_conn < nconn && next_conn - n_ready - (int)connect_fail - (int)closed_early < conc) open_one(&C[next_conn++]);
        pump(100);
        int done = n_ready + (int)connect_fail; u64 t = now_ns();
        if (done != lastn) { lastn = done; tl = t; } else if (t - tl > 10000000000ull) { fprintf(stderr, "wsload: only %d of %d connections became ready\n", n_ready, nconn); break; }
        if (connect_fail > 50 && n_ready == 0) break;
    }
    double csec = (now_ns() - t0) / 1e9; usage u1 = take(0); double gc1 = self_cpu();
    quiesce(settle_ms / 1e3);
    usage u2 = take(1);
    if (announce) { printf("{\"ready\":%d}\n", n_ready); fflush(stdout); }
    int alive = 0; for (int i = 0; i < nsub; i++) alive += C[i].state == C_OPEN;
    if (alive == 0) { printf("{\"label\":\"%s\",\"error\":\"no connections\"}\n", label); return 1; }

    static char out[4096]; int on = 0;
#define J(...) on += snprintf(out + on, sizeof out - on, __VA_ARGS__)
    J("{\"label\":\"%s\",\"mode\":\"%s\",\"subs\":%d,\"alive\":%d,\"topics\":%d,\"size\":%d", label, mode == M_FAN ? "fan" : mode == M_ECHO ? "echo" : "idle", nsub, alive, ntopic, psize);
    J(",\"connect_s\":%.3f,\"connects_per_s\":%.0f,\"connect_fail\":%llu", csec, n_ready / csec, (unsigned long long)connect_fail);
    if (npids) J(",\"srv_us_per_connect\":%.1f,\"rss0_kb\":%.0f,\"pss0_kb\":%.0f,\"rss1_kb\":%.0f,\"pss1_kb\":%.0f,\"rss_kb_per_conn\":%.2f,\"pss_kb_per_conn\":%.2f,\"anon_kb_per_conn\":%.2f", (u1.cpu - u0.cpu) * 1e6 / (n_ready ? n_ready : 1), u0.rss, u0.pss, u2.rss, u2.pss, (u2.rss - u0.rss) / nconn, (u2.pss - u0.pss) / nconn, (u2.anon - u0.anon) / nconn);
    J(",\"gen_us_per_connect\":%.1f", (gc1 - gc0) * 1e6 / (n_ready ? n_ready : 1));
    if (mode == M_IDLE) {
        if (hold > 0) { usage h0 = take(0); u64 a = now_ns(); quiesce(hold); usage h1 = take(1); double s = (now_ns() - a) / 1e9; J(",\"hold_s\":%.2f,\"idle_cpu_pct\":%.3f,\"rss2_kb\":%.0f,\"pss2_kb\":%.0f", s, (h1.cpu - h0.cpu) / s * 100, h1.rss, h1.pss); }
        if (farewell) { say_farewell(); J(",\"farewells\":%llu", (unsigned long long)farewells); }
        J(",\"closed_early\":%llu,\"close_code\":%d,\"pings\":%llu}", (unsigned long long)closed_early, last_close, (unsigned long long)pings); puts(out); return 0;
    }

    /* 2. warm up */
    if (mode == M_FAN) {
        for (int i = 0; i < warm * (ntopic > 1 ? ntopic / 4 + 1 : 1); i++) { pub_fire(); u64 e = now_ns() + 2000000000ull; while (outstanding && now_ns() < e) pump(50); if (i == 0 && outstanding && deliveries == 0) { fprintf(stderr, "wsload: first publish was delivered to nobody\n"); if (!verbose) { printf("{\"label\":\"%s\",\"error\":\"no deliveries\"}\n", label); return 1; } } if (outstanding) { lost += outstanding; outstanding = 0; memset(remain, 0, RING * sizeof *remain); } }
    } else {
        double r = rate; rate = 1; /* no auto-refire */
        for (int w = 0; w < (warm + 19) / 20; w++) { for (int i = 0; i < nsub; i++) if (C[i].state == C_OPEN && !C[i].busy) echo_fire(&C[i]); u64 e = now_ns() + 3000000000ull; while (outstanding && now_ns() < e) pump(50); }
        rate = r;
        if (outstanding == alive) { printf("{\"label\":\"%s\",\"error\":\"no deliveries\"}\n", label); return 1; }
    }
    quiesce(0.1);
    u64 wlost = lost, wd = dups; gbase = gnext; lost = 0; gaps = dups = ooo = 0; deliveries = frames_in = published = echo_sent = recvs = 0; bytes_in = 0; pings = 0; u64 hok0 = http_ok;

    /* 3. measure */
    measuring = 1; usage a = take(0); double g0 = self_cpu(); u64 ts = now_ns(), te = ts + (u64)(duration * 1e9); last_progress = ts; u64 behind_max = 0; long stalls = 0;
    if (rate > 0) {
        tfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}; epoll_ctl(ep, EPOLL_CTL_ADD, tfd, &e);
        u64 k = 0; double step = 1e9 / rate;
        for (;;) {
            u64 t = now_ns(), due = ts + (u64)(k * step);
            if (due >= te || (count && (long)k >= count)) break;
            if (t >= due) {
                if (t - due > behind_max) behind_max = t - due;
                if (mode == M_FAN) pub_fire();
                else { for (int j = 0; j < nsub; j++) { rrconn = (rrconn + 1) % nsub; if (C[rrconn].state == C_OPEN && !C[rrconn].busy) { echo_fire(&C[rrconn]); break; } } }
                k++;
                pump(0);
                continue;
            }
            struct itimerspec it = {.it_value = {(time_t)(due / 1000000000ull), (long)(due % 1000000000ull)}}; timerfd_settime(tfd, TFD_TIMER_ABSTIME, &it, NULL);
            pump(100);
        }
    } else if (mode == M_FAN) {
        for (;;) {
            u64 t = now_ns(); if (t >= te || (count && (long)published >= count)) break;
            if (!burst || !outstanding) {
                corked = burst > 0;
                while (outstanding < window && (!count || (long)published < count)) pub_fire();
                if (corked) { corked = 0; for (int i = 0; i < npub; i++) if (PB[i].state != C_DEAD) flush_out(&PB[i]); }
            }
            pump(20);
            if (now_ns() - last_progress > (u64)(stall_s * 1e9)) { stalls++; for (int i = 0; i < RING; i++) if (remain[i] > 0) { lost += remain[i]; remain[i] = 0; } outstanding = 0; last_progress = now_ns(); }
        }
    } else {
        for (int i = 0; i < nsub; i++) if (C[i].state == C_OPEN && !C[i].busy) echo_fire(&C[i]);
        while (now_ns() < te && (!count || (long)deliveries < count)) pump(20);
    }
    stop_sending = 1; u64 tm = now_ns(); double dsec = (tm - ts) / 1e9; u64 dmeas = deliveries;
    while (outstanding > 0 && now_ns() - tm < 25000000000ull && now_ns() - last_progress < (u64)(drain_s * 1e9)) pump(20);
    double fsec = (now_ns() - ts) / 1e9;
    usage b = take(1); double g1 = self_cpu(); measuring = 0;
    if (mode == M_FAN) { for (int i = 0; i < RING; i++) if (remain[i] > 0) lost += remain[i]; } else lost += outstanding;
    double dd = deliveries ? deliveries : 1;
    u64 pubs = mode == M_FAN ? published : echo_sent;
    J(",\"loop\":\"%s\",\"window\":%d,\"rate\":%.1f,\"seconds\":%.3f,\"published\":%llu,\"deliveries\":%llu,\"deliveries_per_s\":%.0f", rate > 0 ? "open" : "closed", mode == M_ECHO ? 1 : window, rate, fsec, (unsigned long long)pubs, (unsigned long long)deliveries, dmeas / dsec);
    if (npids) J(",\"srv_us_per_msg\":%.3f,\"srv_user_frac\":%.2f,\"srv_us_per_publish\":%.1f,\"srv_cpu_pct\":%.0f,\"srv_procs\":%d,\"srv_threads\":%d,\"rss_end_kb\":%.0f", (b.cpu - a.cpu) * 1e6 / dd, (b.user - a.user) / ((b.user - a.user + b.sys - a.sys) > 0 ? (b.user - a.user + b.sys - a.sys) : 1), (b.cpu - a.cpu) * 1e6 / (pubs ? pubs : 1), (b.cpu - a.cpu) / fsec * 100, b.procs, b.threads, b.rss);
    J(",\"gen_us_per_msg\":%.3f,\"gen_cpu_pct\":%.1f,\"lat_us\":{\"p50\":%.0f,\"p99\":%.0f,\"p999\":%.0f,\"max\":%.0f,\"mean\":%.0f}", (g1 - g0) * 1e6 / dd, (g1 - g0) / fsec * 100, hq(&Hd, .5), hq(&Hd, .99), hq(&Hd, .999), Hd.max / 1e3, Hd.n ? Hd.sum / Hd.n / 1e3 : 0);
    if (mode == M_FAN) J(",\"full_us\":{\"p50\":%.0f,\"p99\":%.0f,\"max\":%.0f}", hq(&Hf, .5), hq(&Hf, .99), Hf.max / 1e3);
    J(",\"bytes_in\":%llu,\"bytes_per_msg\":%.1f,\"frames_in\":%llu,\"msgs_per_recv\":%.2f,\"lost\":%llu,\"gaps\":%llu,\"dups\":%llu,\"late\":%llu,\"stalls\":%ld,\"closed_early\":%llu,\"pings\":%llu,\"late_send_max_us\":%.0f,\"warm_lost\":%llu,\"warm_dups\":%llu",
      (unsigned long long)bytes_in, bytes_in / dd, (unsigned long long)frames_in, dd / (recvs ? recvs : 1), (unsigned long long)lost, (unsigned long long)gaps, (unsigned long long)dups, (unsigned long long)ooo, stalls, (unsigned long long)closed_early, (unsigned long long)pings, behind_max / 1e3, (unsigned long long)wlost, (unsigned long long)wd);
    if (http_pub) J(",\"http_ok\":%llu,\"http_bad\":%llu", (unsigned long long)(http_ok - hok0), (unsigned long long)http_bad);
    J(",\"burst\":%d,\"per\":%d,\"close_code\":%d", burst, per, last_close);
    if (farewell) { say_farewell(); J(",\"farewells\":%llu", (unsigned long long)farewells); }
    J("}"); puts(out); return 0;
}
