/* What the parts of the lab's guest share. One static program is the whole userland: it is PID 1, brings up disk,
 * network and the observer's channel, and is the workload. It has no shell and starts no other program, so a boot
 * under emulation stays short and a stamp can't come from anything but this process. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Who this instance is, as told by whoever started it. */
struct identity {
    unsigned long long epoch; /* ticket epoch; 0 when nobody said */
    char host[64];            /* host it runs on; "?" when nobody said */
    char boot[40];            /* this kernel's boot id: one value for each instance ever started */
    char address[32];         /* A.B.C.D/LEN from antipode.ip= */
    bool stubborn;            /* antipode.stubborn=1: the power button is ignored */
};

/* A file of fixed 512-byte text slots, written in order, each write acknowledged by the disk (O_DIRECT|O_DSYNC). */
struct slots {
    int fd;
    uint64_t next;  /* index of the first blank slot (log) or of the next slot to overwrite (ring) */
    uint64_t count; /* slots in the file */
    void *buffer;   /* one aligned slot; the owner serialises its use */
};

enum { SLOT_BYTES = 512 };

/* identity.c */
void identity_read(struct identity *who);

/* slots.c: 0 or -1 with errno set */
int slots_open(struct slots *s, const char *path);
int slots_find_end(struct slots *s);
int slots_write(struct slots *s, const char *text);

/* http.c: answers forever on :80; one call a thread */
void http_start(const struct identity *who, struct slots *log);

/* stamp.c */
void stamps_start(const struct identity *who, struct slots *ring);

/* power.c: a press after `power_listen` isn't lost; `power_wait` returns when one came that is to be obeyed */
void power_listen(void);
void power_wait(const struct identity *who);

/* setup.c */
void mount_system(void);
void load_modules(void);
void network_up(const struct identity *who);
int disk_mount(void);

/* main.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
double uptime_seconds(void);

#endif
