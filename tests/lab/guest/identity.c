/* Epoch and host of this instance: from the kernel command line, or from SMBIOS OEM strings (type 11), in that order. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

static ssize_t read_file(const char *path, char *into, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 0, got;
    if (fd < 0)
        return -1;
    while ((size_t)n < size - 1 && (got = read(fd, into + n, size - 1 - n)) > 0)
        n += got;
    close(fd);
    into[n] = 0;
    return n;
}

static const char *value_of(const char *word, const char *key)
{
    size_t n = strlen(key);
    return strncmp(word, key, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

static void take(struct identity *who, const char *word)
{
    const char *v;
    if ((v = value_of(word, "antipode.epoch")))
        who->epoch = strtoull(v, NULL, 10);
    else if ((v = value_of(word, "antipode.host")))
        snprintf(who->host, sizeof who->host, "%s", v);
    else if ((v = value_of(word, "antipode.ip")))
        snprintf(who->address, sizeof who->address, "%s", v);
    else if ((v = value_of(word, "antipode.stubborn")))
        who->stubborn = v[0] == '1';
}

/* SMBIOS structures: {type, length, handle} + formatted area, then strings ended by 0, the set ended by another 0. */
static void from_firmware(struct identity *who)
{
    static char table[65536];
    ssize_t size = read_file("/sys/firmware/dmi/tables/DMI", table, sizeof table);
    ssize_t at = 0;
    while (size > 0 && at + 4 <= size) {
        unsigned char type = table[at], length = table[at + 1];
        ssize_t text = at + length;
        while (text < size && table[text]) {
            if (type == 11)
                take(who, table + text);
            text += strlen(table + text) + 1;
        }
        /* A structure without strings still ends in two zero bytes. */
        at = text == at + length ? text + 2 : text + 1;
        if (type == 127 || length < 4)
            break;
    }
}

static void from_command_line(struct identity *who)
{
    static char line[4096];
    char *rest = line, *word;
    if (read_file("/proc/cmdline", line, sizeof line) < 0)
        return;
    while ((word = strsep(&rest, " \n")))
        take(who, word);
}

void identity_read(struct identity *who)
{
    memset(who, 0, sizeof *who);
    strcpy(who->host, "?");
    from_firmware(who);
    from_command_line(who);
    if (read_file("/proc/sys/kernel/random/boot_id", who->boot, sizeof who->boot) > 0)
        who->boot[strcspn(who->boot, "\n")] = 0;
}
