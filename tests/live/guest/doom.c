/* Ends the life of a guest host in one of several ways, and says until when the guest lived.
 *
 *     doom OUT kill PID...     SIGKILL to all of them at one instant
 *     doom OUT panic           a kernel panic
 *     doom OUT none            nothing: shows that the host lives
 *
 * Every 2 ms it writes a line "alive NS" (CLOCK_BOOTTIME) to OUT, a character device that leads out of the guest; the
 * instant of the deed is a line "deed NS". A gap between lines means that this guest didn't run: then nothing can be told.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { TICK_NS = 2000000, BEFORE = 100 };

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void say(int out, const char *word, long long at)
{
    char line[64];
    int len = snprintf(line, sizeof line, "%s %lld\n", word, at);
    if (write(out, line, (size_t)len) != len)
        _exit(4);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    int out = open(argv[1], O_WRONLY);
    int sysrq = open("/proc/sysrq-trigger", O_WRONLY);
    if (out < 0 || sysrq < 0)
        return 3;
    mlockall(MCL_CURRENT | MCL_FUTURE);
    struct sched_param most = {.sched_priority = 20};
    sched_setscheduler(0, SCHED_FIFO, &most);
    for (int tick = 0;; tick++) {
        say(out, "alive", now());
        if (tick == BEFORE && strcmp(argv[2], "none") != 0) {
            say(out, "deed", now());
            if (strcmp(argv[2], "panic") == 0 && write(sysrq, "c", 1) != 1)
                return 5;
            for (int i = 3; i < argc; i++)
                if (kill(atoi(argv[i]), SIGKILL) != 0)
                    return 6;
        }
        struct timespec tick_time = {0, TICK_NS};
        nanosleep(&tick_time, NULL);
    }
}
