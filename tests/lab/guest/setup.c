/* File systems, kernel modules, network and disk of the guest. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

void mount_system(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/data", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
}

/* /modules/order lists the files in an order that satisfies every dependency; the image's builder made it. */
void load_modules(void)
{
    FILE *order = fopen("/modules/order", "r");
    char name[128], path[160];
    if (!order)
        return;
    while (fscanf(order, "%127s", name) == 1) {
        snprintf(path, sizeof path, "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
            say("module %s: %s", name, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    fclose(order);
}

static void wait_for(const char *path)
{
    struct timespec step = {.tv_nsec = 5 * 1000 * 1000};
    for (int i = 0; i < 1000 && access(path, F_OK) != 0; i++)
        nanosleep(&step, NULL);
}

static void interface_up(int s, const char *name)
{
    struct ifreq r = {0};
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    ioctl(s, SIOCGIFFLAGS, &r);
    r.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(s, SIOCSIFFLAGS, &r) != 0)
        say("%s up: %s", name, strerror(errno));
}

static void set_address(int s, unsigned long request, const char *name, in_addr_t address)
{
    struct ifreq r = {0};
    struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = address;
    if (ioctl(s, request, &r) != 0)
        say("%s address: %s", name, strerror(errno));
}

/* The guest never speaks first and never announces its address: who moves it must do that, and tests rely on it. */
void network_up(const struct identity *who)
{
    char text[32];
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    interface_up(s, "lo");
    snprintf(text, sizeof text, "%s", who->address);
    char *slash = strchr(text, '/');
    if (slash) {
        int bits = atoi(slash + 1);
        *slash = 0;
        wait_for("/sys/class/net/eth0");
        set_address(s, SIOCSIFADDR, "eth0", inet_addr(text));
        set_address(s, SIOCSIFNETMASK, "eth0", htonl(bits ? 0xffffffffu << (32 - bits) : 0));
        interface_up(s, "eth0");
    }
    close(s);
}

int disk_mount(void)
{
    wait_for("/dev/vda");
    return mount("/dev/vda", "/data", "ext4", MS_NOATIME | MS_LAZYTIME, "errors=remount-ro");
}
