/* The ACPI power button, read as KEY_POWER from any input device that has it. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

enum { DEVICES = 16 };

static struct pollfd devices[DEVICES];
static int count;

void power_listen(void)
{
    char path[300];
    struct dirent *entry;
    DIR *inputs = opendir("/dev/input");
    while (inputs && count < DEVICES && (entry = readdir(inputs))) {
        if (strncmp(entry->d_name, "event", 5) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            devices[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    if (inputs)
        closedir(inputs);
    if (count == 0)
        say("no power button");
}

static bool pressed(int fd)
{
    struct input_event e;
    return read(fd, &e, sizeof e) == sizeof e && e.type == EV_KEY && e.code == KEY_POWER && e.value == 1;
}

void power_wait(const struct identity *who)
{
    for (;;) {
        if (poll(devices, count, -1) <= 0)
            continue;
        for (int i = 0; i < count; i++)
            if ((devices[i].revents & POLLIN) && pressed(devices[i].fd)) {
                if (!who->stubborn)
                    return;
                say("GUEST-STUBBORN power button ignored");
            }
    }
}
