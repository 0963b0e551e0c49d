/* PID 1 of the lab's guest: bring up, serve, and on the power button go down cleanly. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

void say(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (n < 0)
        return;
    if (n > (int)sizeof line - 2)
        n = sizeof line - 2;
    line[n++] = '\n';
    /* One write, so that lines of several threads never mix. A full console costs a line, nothing else. */
    if (write(1, line, n) < 0)
        return;
}

double uptime_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void open_console(void)
{
    int fd = open("/dev/console", O_RDWR);
    if (fd < 0)
        return;
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static void power_off(void)
{
    sync();
    /* The log's descriptors keep the file system busy: read-only is as clean as unmounted for the disk. */
    if (mount(NULL, "/data", NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        umount2("/data", MNT_DETACH);
    sync();
    reboot(RB_POWER_OFF);
}

/* PID 1 must never return: the kernel would panic, and a test would see a reset that no fault caused. */
static void stay(const char *why)
{
    say("GUEST-STUCK %s: %s", why, strerror(errno));
    for (;;)
        pause();
}

int main(void)
{
    static struct identity who;
    static struct slots log, ring;
    mount_system();
    open_console();
    signal(SIGPIPE, SIG_IGN);
    double began = uptime_seconds();
    load_modules();
    identity_read(&who);
    network_up(&who);
    if (disk_mount() != 0)
        stay("mount /dev/vda");
    if (slots_open(&log, "/data/requests.log") != 0 || slots_find_end(&log) != 0)
        stay("open requests.log");
    if (slots_open(&ring, "/data/stamps.log") != 0)
        stay("open stamps.log");
    power_listen();
    stamps_start(&who, &ring);
    http_start(&who, &log);
    say("GUEST-READY epoch=%llu host=%s boot=%s log=%llu init=%.2f up=%.2f", who.epoch, who.host, who.boot,
        (unsigned long long)log.next, began, uptime_seconds());
    power_wait(&who);
    say("GUEST-DOWN");
    power_off();
    stay("power off");
}
