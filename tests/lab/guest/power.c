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

static int open_inputs(struct pollfd *devices)
{
    int n = 0;
    char path[300];
    struct dirent *entry;
    DIR *inputs = opendir("/dev/input");
    while (inputs && n < DEVICES && (entry = readdir(inputs))) {
        if (strncmp(entry->d_name, "event", 5) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            devices[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    if (inputs)
        closedir(inputs);
    return n;
}

static bool pressed(int fd)
{
    struct input_event e;
    return read(fd, &e, sizeof e) == sizeof e && e.type == EV_KEY && e.code == KEY_POWER && e.value == 1;
}

void power_wait(const struct identity *who)
{
    struct pollfd devices[DEVICES];
    int n = open_inputs(devices);
    if (n == 0)
        say("no power button");
    for (;;) {
        if (poll(devices, n, -1) <= 0)
            continue;
        for (int i = 0; i < n; i++)
            if ((devices[i].revents & POLLIN) && pressed(devices[i].fd)) {
                if (!who->stubborn)
                    return;
                say("GUEST-STUBBORN power button ignored");
            }
    }
}
