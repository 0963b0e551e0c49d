/* Fixed-size text slots in a file that was filled with blanks when the disk was made.
 *
 * Overwriting blocks that exist needs no journal commit: one write and one flush reach the disk for each record, so a
 * record's answer waits for exactly what the claim is about. A blank slot is 511 spaces and a newline; a record is
 * its text, padded likewise. Sectors don't tear, so a slot holds an old or a new record, never a mix. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

int slots_open(struct slots *s, const char *path)
{
    struct stat about;
    s->fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &about) != 0)
        return -1;
    s->count = about.st_size / SLOT_BYTES;
    s->next = 0;
    errno = posix_memalign(&s->buffer, 4096, SLOT_BYTES);
    return errno ? -1 : 0;
}

/* Records are written in order, so the first blank slot can be searched by halving. */
int slots_find_end(struct slots *s)
{
    uint64_t low = 0, high = s->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (pread(s->fd, s->buffer, SLOT_BYTES, middle * SLOT_BYTES) != SLOT_BYTES)
            return -1;
        if (*(char *)s->buffer == ' ')
            high = middle;
        else
            low = middle + 1;
    }
    s->next = low;
    return 0;
}

/* On success the record is on the disk and `next` has moved; on failure it hasn't, and the slot's content is unknown. */
int slots_write(struct slots *s, const char *text)
{
    size_t n = strlen(text);
    if (s->next >= s->count || n >= SLOT_BYTES) {
        errno = ENOSPC;
        return -1;
    }
    memset(s->buffer, ' ', SLOT_BYTES);
    memcpy(s->buffer, text, n);
    ((char *)s->buffer)[SLOT_BYTES - 1] = '\n';
    ssize_t wrote = pwrite(s->fd, s->buffer, SLOT_BYTES, s->next * SLOT_BYTES);
    if (wrote != SLOT_BYTES) {
        if (wrote >= 0)
            errno = EIO;
        return -1;
    }
    s->next++;
    return 0;
}
