/* The workload: answers each request after its id is on the disk.
 *
 *   GET /w?id=NONCE   appends {n, nonce, epoch, host, boot} to requests.log, waits for the disk, answers the same text;
 *                     503 when the disk refused, so an answer 200 is the only promise there is
 *   GET /health       200 at once, touches no disk
 *
 * `n` is the record's number since the disk was made. Two answers with one `n` mean two histories. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

enum { WORKERS = 4, PORT = 80 };

static const struct identity *self;
static struct slots *requests;
static pthread_mutex_t one_writer = PTHREAD_MUTEX_INITIALIZER;
static int listener;

static void answer(int c, const char *status, const char *body)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                     status, strlen(body), body);
    /* MSG_NOSIGNAL and no retry: a client that left gets nothing. */
    if (send(c, text, n, MSG_NOSIGNAL) != n)
        return;
}

static void append_and_answer(int c, const char *nonce)
{
    char record[SLOT_BYTES];
    pthread_mutex_lock(&one_writer);
    snprintf(record, sizeof record - 1, "{\"n\":%llu,\"nonce\":\"%s\",\"epoch\":%llu,\"host\":\"%s\",\"boot\":\"%s\"}",
             (unsigned long long)requests->next, nonce, self->epoch, self->host, self->boot);
    int failed = slots_write(requests, record);
    int why = errno;
    pthread_mutex_unlock(&one_writer);
    if (failed) {
        say("request refused: %s", strerror(why));
        snprintf(record, sizeof record, "{\"error\":\"%s\"}", strerror(why));
        answer(c, "503 Service Unavailable", record);
        return;
    }
    answer(c, "200 OK", record);
}

/* Letters, digits, '-', '_' and '.' only: what is logged must parse as one JSON string. */
static void copy_nonce(char *into, size_t size, const char *from)
{
    size_t n = strspn(from, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    if (n >= size)
        n = size - 1;
    memcpy(into, from, n);
    into[n] = 0;
}

static void serve_one(int c)
{
    char request[2048], nonce[65] = "";
    struct timeval patience = {.tv_sec = 2};
    size_t n = 0;
    setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    do {
        ssize_t got = recv(c, request + n, sizeof request - 1 - n, 0);
        if (got <= 0)
            return;
        n += got;
        request[n] = 0;
    } while (!strstr(request, "\r\n\r\n") && n < sizeof request - 1);
    if (strncmp(request, "GET /health", 11) == 0)
        answer(c, "200 OK", "{\"health\":\"ok\"}");
    else if (strncmp(request, "GET /w?id=", 10) == 0) {
        copy_nonce(nonce, sizeof nonce, request + 10);
        append_and_answer(c, nonce);
    } else
        answer(c, "404 Not Found", "{\"error\":\"GET /w?id=NONCE or GET /health\"}");
}

static void *worker(void *unused)
{
    (void)unused;
    for (;;) {
        int c = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (c < 0)
            continue;
        serve_one(c);
        close(c);
    }
    return NULL;
}

void http_start(const struct identity *who, struct slots *log)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int on = 1;
    self = who;
    requests = log;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 64) != 0)
        say("listen: %s", strerror(errno));
    for (int i = 0; i < WORKERS; i++) {
        pthread_t t;
        pthread_create(&t, NULL, worker, NULL);
    }
}
