/* Load generator and local service for the data path's benchmarks.
 *
 *   load service                         listen on 127.0.0.1, print {"port": N}, serve until standard input ends
 *   load bulk PORT STREAMS SECONDS up|down
 *   load ping PORT SIZE COUNT            round trips on one connection
 *   load rate PORT CONCURRENCY SECONDS   connect, 100 bytes there, 1024 back, close, again
 *   load idle PORT COUNT                 open and hold connections until standard input ends
 *
 * Each command prints one line of JSON. The first byte of a connection tells the service what it is for:
 * S sink, G generate, E echo, R respond, H hold (answers one byte). Python cannot load what is measured here:
 * its own share of two processors would be the result.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 128 * 1024, REQUEST = 100, RESPONSE = 1024, MAX_FD = 1 << 17, EVENTS = 256 };

static char chunk[CHUNK];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static void watch(int poll, int fd, uint32_t events, uint64_t tag, int operation) {
  struct epoll_event event = {.events = events, .data.u64 = tag};
  if (epoll_ctl(poll, operation, fd, &event)) fail("epoll_ctl");
}

/* ---- the service ---- */

struct peer {
  char purpose;
  int received;
};

static struct peer *peers;

static void serve_accept(int poll, int listener) {
  for (int i = 0; i < 64; i++) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    peers[fd] = (struct peer){0, 0};
    watch(poll, fd, EPOLLIN, fd, EPOLL_CTL_ADD);
  }
}

/* Write all of a small answer; the benchmarks never have more than one outstanding. */
static void answer(int fd, const char *data, int size) {
  while (size > 0) {
    ssize_t sent = write(fd, data, size);
    if (sent < 0) {
      if (errno == EAGAIN) continue;
      return;
    }
    data += sent;
    size -= sent;
  }
}

static void serve_one(int poll, int fd, uint32_t events) {
  struct peer *peer = &peers[fd];
  if (events & (EPOLLHUP | EPOLLERR)) goto over;
  if (peer->purpose == 'G') {
    if ((events & EPOLLIN) && read(fd, chunk, 1) <= 0 && errno != EAGAIN) goto over;
    if (write(fd, chunk, CHUNK) < 0 && errno != EAGAIN) goto over;
    return;
  }
  ssize_t size = read(fd, chunk, CHUNK);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) goto over;
  char *data = chunk;
  if (!peer->purpose) {
    peer->purpose = chunk[0];
    data++;
    size--;
    if (peer->purpose == 'G') {
      watch(poll, fd, EPOLLIN | EPOLLOUT, fd, EPOLL_CTL_MOD);
      return;
    }
    if (peer->purpose == 'H') {
      answer(fd, "h", 1);
      return;
    }
    if (peer->purpose == 'R') size++; /* the letter counts as a byte of the request */
  }
  if (peer->purpose == 'E') answer(fd, data, size);
  if (peer->purpose == 'R') {
    for (peer->received += size; peer->received >= REQUEST; peer->received -= REQUEST) answer(fd, chunk, RESPONSE);
  }
  return;
over:
  close(fd);
}

static int service(void) {
  peers = calloc(MAX_FD, sizeof *peers);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
  getsockname(listener, (void *)&address, &length);
  printf("{\"port\": %d}\n", ntohs(address.sin_port));
  fflush(stdout);
  int poll = epoll_create1(EPOLL_CLOEXEC);
  watch(poll, listener, EPOLLIN, listener, EPOLL_CTL_ADD);
  watch(poll, 0, EPOLLIN | EPOLLHUP, 0, EPOLL_CTL_ADD);
  struct epoll_event events[EVENTS];
  for (;;) {
    int count = epoll_wait(poll, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.u64;
      if (fd == listener) serve_accept(poll, listener);
      else if (fd == 0) return 0;
      else serve_one(poll, fd, events[i].events);
    }
  }
}

/* ---- the loads ---- */

static int dial(int port, int flags) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) fail("socket");
  struct sockaddr_in address = loopback(port);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (connect(fd, (void *)&address, sizeof address) && errno != EINPROGRESS) fail("connect");
  return fd;
}

static int bulk(int port, int streams, double seconds, int up) {
  int poll = epoll_create1(0);
  int *fds = calloc(streams, sizeof *fds);
  uint64_t *moved = calloc(streams, sizeof *moved), total = 0, all = 0;
  for (int i = 0; i < streams; i++) {
    fds[i] = dial(port, 0);
    if (write(fds[i], up ? "S" : "G", 1) != 1) fail("write");
    fcntl(fds[i], F_SETFL, O_NONBLOCK);
    watch(poll, fds[i], up ? EPOLLOUT : EPOLLIN, i, EPOLL_CTL_ADD);
  }
  double warm = now() + 0.3, end = warm + seconds, started = 0, time;
  struct epoll_event events[EVENTS];
  while ((time = now()) < end) {
    if (!started && time >= warm) {
      started = time;
      total = 0;
      memset(moved, 0, streams * sizeof *moved);
    }
    int count = epoll_wait(poll, events, EVENTS, 200);
    for (int k = 0; k < count; k++) {
      int i = events[k].data.u64;
      ssize_t size = up ? write(fds[i], chunk, CHUNK) : read(fds[i], chunk, CHUNK);
      if (size < 0 && errno == EAGAIN) continue;
      if (size <= 0) fail("the stream ended");
      total += size;
      all += size;
      moved[i] += size;
    }
  }
  double elapsed = now() - started;
  uint64_t least = UINT64_MAX, most = 0;
  for (int i = 0; i < streams; i++) {
    if (moved[i] < least) least = moved[i];
    if (moved[i] > most) most = moved[i];
  }
  printf("{\"mbps\": %.1f, \"fairness\": %.2f, \"bytes\": %llu}\n", total / elapsed / 1e6,
         most ? (double)least / most : 0.0, (unsigned long long)all);
  return 0;
}

static int by_size(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static void print_times(double *times, int count, const char *before) {
  qsort(times, count, sizeof *times, by_size);
  printf("{%s\"p50\": %.1f, \"p99\": %.1f}\n", before, times[count / 2] * 1e6, times[(int)(count * 0.99)] * 1e6);
}

static int ping(int port, int size, int count) {
  int fd = dial(port, 0);
  double *times = calloc(count, sizeof *times);
  if (write(fd, "E", 1) != 1) fail("write");
  usleep(50000);
  for (int i = -200; i < count; i++) {
    double started = now();
    if (write(fd, chunk, size) != size) fail("write");
    for (int got = 0; got < size;) {
      ssize_t part = read(fd, chunk, size - got);
      if (part <= 0) fail("read");
      got += part;
    }
    if (i >= 0) times[i] = now() - started;
  }
  print_times(times, count, "");
  return 0;
}

struct attempt {
  double started;
  int received;
};

static int rate(int port, int concurrency, double seconds) {
  int poll = epoll_create1(0), capacity = 1 << 20, count = 0;
  struct attempt *attempts = calloc(MAX_FD, sizeof *attempts);
  double *times = calloc(capacity, sizeof *times);
  long done = 0, failed = 0, all = 0;
  for (int i = 0; i < concurrency; i++) {
    int fd = dial(port, SOCK_NONBLOCK);
    attempts[fd] = (struct attempt){now(), -1};
    watch(poll, fd, EPOLLOUT, fd, EPOLL_CTL_ADD);
  }
  double warm = now() + 0.4, end = warm + seconds, started = 0, time;
  struct epoll_event events[EVENTS];
  while ((time = now()) < end) {
    if (!started && time >= warm) {
      started = time;
      done = failed = count = 0;
    }
    int ready = epoll_wait(poll, events, EVENTS, 200);
    for (int k = 0; k < ready; k++) {
      int fd = events[k].data.u64;
      struct attempt *attempt = &attempts[fd];
      if (attempt->received < 0) {
        chunk[0] = 'R';
        if (write(fd, chunk, REQUEST) == REQUEST) {
          attempt->received = 0;
          watch(poll, fd, EPOLLIN, fd, EPOLL_CTL_MOD);
          continue;
        }
        failed++;
      } else {
        ssize_t size = read(fd, chunk, 2 * RESPONSE);
        if (size < 0 && errno == EAGAIN) continue;
        if (size > 0 && (attempt->received += size) < RESPONSE) continue;
        if (size <= 0) failed++;
        else {
          done++;
          all++;
          if (count < capacity) times[count++] = now() - attempt->started;
        }
      }
      close(fd);
      fd = dial(port, SOCK_NONBLOCK);
      attempts[fd] = (struct attempt){now(), -1};
      watch(poll, fd, EPOLLOUT, fd, EPOLL_CTL_ADD);
    }
  }
  char before[128];
  snprintf(before, sizeof before, "\"rate\": %.0f, \"failed\": %ld, \"connections\": %ld, ",
           done / (now() - started), failed, all);
  if (!count) count = 1;
  print_times(times, count, before);
  return 0;
}

static int idle(int port, int count) {
  int *fds = calloc(count, sizeof *fds), window = 64;
  char byte;
  for (int i = 0; i < count + window; i++) {
    if (i < count) {
      fds[i] = dial(port, 0);
      if (write(fds[i], "H", 1) != 1) fail("write");
    }
    if (i >= window && i - window < count && read(fds[i - window], &byte, 1) != 1) fail("read");
  }
  printf("{\"held\": %d}\n", count);
  fflush(stdout);
  while (read(0, &byte, 1) > 0) continue;
  return 0;
}

int main(int argc, char **argv) {
  struct rlimit limit;
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const char *what = argc > 1 ? argv[1] : "";
  if (!strcmp(what, "service")) return service();
  if (!strcmp(what, "bulk") && argc == 6)
    return bulk(atoi(argv[2]), atoi(argv[3]), atof(argv[4]), !strcmp(argv[5], "up"));
  if (!strcmp(what, "ping") && argc == 5) return ping(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
  if (!strcmp(what, "rate") && argc == 5) return rate(atoi(argv[2]), atoi(argv[3]), atof(argv[4]));
  if (!strcmp(what, "idle") && argc == 4) return idle(atoi(argv[2]), atoi(argv[3]));
  fprintf(stderr, "usage: load service | bulk | ping | rate | idle (see the head of load.c)\n");
  return 2;
}
