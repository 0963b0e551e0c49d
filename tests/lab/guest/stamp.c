/* Signs of life: every 10 ms one line to the observer's virtio-serial port, and to the disk as fast as it acknowledges.
 *
 * A tick that was missed is never made up for: `seq` counts ticks, a gap in it is a gap in life. Writes to the port
 * don't block; a line that finds it full is dropped, since a stamp that arrives late would be a false witness. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

enum { TICK_NS = 10 * 1000 * 1000 };

static const struct identity *self;
static struct slots *stamps;
static _Atomic unsigned long long tick;

static int stamp_text(char *into, size_t size, unsigned long long seq)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return snprintf(into, size, "{\"epoch\":%llu,\"host\":\"%s\",\"seq\":%llu,\"guest_boot\":\"%s\",\"up_ms\":%lld}",
                    self->epoch, self->host, seq, self->boot, t.tv_sec * 1000LL + t.tv_nsec / 1000000);
}

static bool is_observer(const char *port)
{
    char path[320], name[64] = "";
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", port);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool found = fgets(name, sizeof name, f) && strcmp(name, "org.antipode.observer\n") == 0;
    fclose(f);
    return found;
}

/* The port's name arrives by a control message after its probe, so it is looked for until it is there. */
static int observer_port(void)
{
    char path[320];
    DIR *ports = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    int fd = -1;
    while (ports && fd < 0 && (entry = readdir(ports)))
        if (is_observer(entry->d_name)) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        }
    if (ports)
        closedir(ports);
    return fd;
}

static void next_tick(struct timespec *when)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    do {
        when->tv_nsec += TICK_NS;
        if (when->tv_nsec >= 1000000000) {
            when->tv_nsec -= 1000000000;
            when->tv_sec++;
        }
        tick++;
    } while (when->tv_sec < now.tv_sec || (when->tv_sec == now.tv_sec && when->tv_nsec < now.tv_nsec));
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, when, NULL);
}

static void *to_observer(void *unused)
{
    char line[SLOT_BYTES];
    struct timespec when;
    int port = -1;
    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &when);
    for (;;) {
        next_tick(&when);
        if (port < 0)
            port = observer_port();
        int n = stamp_text(line, sizeof line - 1, tick);
        line[n++] = '\n';
        if (port >= 0 && write(port, line, n) != n && errno != EAGAIN)
            say("observer: %s", strerror(errno));
    }
    return NULL;
}

/* The ring goes on after the newest stamp of an earlier instance, found by the count that each disk stamp carries. */
static unsigned long long ring_resume(void)
{
    unsigned long long newest = 0, value;
    for (uint64_t i = 0; i < stamps->count; i += 64) {
        /* Every 64th slot, then each slot after the newest of these: the ring is written in order. */
        if (pread(stamps->fd, stamps->buffer, SLOT_BYTES, i * SLOT_BYTES) == SLOT_BYTES &&
            sscanf(stamps->buffer, "{\"count\":%llu,", &value) == 1 && value >= newest)
            newest = value;
    }
    for (;;) {
        uint64_t at = (newest + 1) % stamps->count;
        if (pread(stamps->fd, stamps->buffer, SLOT_BYTES, at * SLOT_BYTES) != SLOT_BYTES ||
            sscanf(stamps->buffer, "{\"count\":%llu,", &value) != 1 || value != newest + 1)
            return newest + 1;
        newest = value;
    }
}

static void *to_disk(void *unused)
{
    char stamp[SLOT_BYTES - 64], record[SLOT_BYTES];
    unsigned long long seen = 0, count = ring_resume();
    struct timespec wait = {.tv_nsec = TICK_NS / 2};
    (void)unused;
    for (;;) {
        unsigned long long now = tick;
        if (now == seen) {
            nanosleep(&wait, NULL);
            continue;
        }
        seen = now;
        stamp_text(stamp, sizeof stamp, now);
        snprintf(record, sizeof record - 1, "{\"count\":%llu,%s", count, stamp + 1);
        stamps->next = count % stamps->count;
        if (slots_write(stamps, record) == 0)
            count++;
        else
            nanosleep(&wait, NULL);
    }
    return NULL;
}

void stamps_start(const struct identity *who, struct slots *ring)
{
    pthread_t t;
    self = who;
    stamps = ring;
    pthread_create(&t, NULL, to_observer, NULL);
    pthread_create(&t, NULL, to_disk, NULL);
}
