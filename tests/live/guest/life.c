/* A workload without a machine of its own: an adapter for kind `command` (examples/adapters/README.md), and what it runs.
 *
 * `run` stamps every 10 ms, as a lab guest does, to a character device that leads out of a guest or to a unix socket. It
 * is found again by its own command line, which carries the epochs; nothing is trusted to a file.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TICK_NS = 10000000, REQUEST_MAX = 65536 };

static char request[REQUEST_MAX];

/* The value of a key of the request: a number or a plain text. Keys are unique in it. */
static void value_of(const char *key, char *out, size_t len)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\":", key);
    const char *at = strstr(request, wanted);
    size_t n = 0;
    out[0] = 0;
    if (at == NULL)
        return;
    at += strlen(wanted);
    int quoted = *at == '"';
    for (at += quoted; *at && n + 1 < len && (quoted ? *at != '"' : isdigit((unsigned char)*at)); at++)
        out[n++] = *at;
    out[n] = 0;
}

/* Reads a process's words; how many there are, none if it isn't `life run`. */
static int words_of(const char *pid, char *text, size_t len, char *words[], int most)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, len - 1);
    close(fd);
    int count = 0;
    for (ssize_t at = 0; at < got && count < most; at += (ssize_t)strlen(text + at) + 1)
        words[count++] = text + at;
    return count > 3 && strcmp(words[1], "run") == 0 && strstr(words[0], "life") ? count : 0;
}

/* Finds what runs; kills it if asked to. Its pid, or 0. */
static int find(int deadly, char *epoch, char *host_epoch)
{
    DIR *all = opendir("/proc");
    int found = 0;
    for (struct dirent *one; all && (one = readdir(all));) {
        char text[512] = {0}, *words[8];
        if (!isdigit((unsigned char)one->d_name[0]) || !words_of(one->d_name, text, sizeof text, words, 8))
            continue;
        found = atoi(one->d_name);
        snprintf(epoch, 32, "%s", words[2]);
        snprintf(host_epoch, 32, "%s", words[3]);
        if (deadly)
            kill(found, SIGKILL);
    }
    if (all)
        closedir(all);
    return found;
}

static int channel(const char *path)
{
    struct stat at;
    /* By what it is, not by its name: shared memory, where sockets may be, is below /dev, too. */
    if (stat(path, &at) == 0 && S_ISCHR(at.st_mode))
        return open(path, O_WRONLY);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? fd : -1;
}

/* argv: life run EPOCH HOST_EPOCH HOST CHANNEL */
static int run(char **argv)
{
    unsigned char id[8] = {0};
    int random = open("/dev/urandom", O_RDONLY), out = channel(argv[5]);
    if (out < 0 || random < 0 || read(random, id, sizeof id) != sizeof id)
        return 3;
    struct timespec due, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (unsigned long seq = 0;; seq++) {
        char line[256];
        int len = snprintf(line, sizeof line,
                           "{\"epoch\":%s,\"host\":\"%s\",\"seq\":%lu,\"guest_boot\":\"%02x%02x%02x%02x%02x%02x\",\"up_ms\":%lu}\n",
                           argv[2], argv[4], seq, id[0], id[1], id[2], id[3], id[4], id[5], seq * 10);
        if (write(out, line, (size_t)len) != len)
            return 4;
        clock_gettime(CLOCK_MONOTONIC, &now);
        /* A tick that was missed is never made up for. */
        due = now;
        due.tv_nsec += TICK_NS;
        due.tv_sec += due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
}

static void start(const char *self)
{
    char epoch[32], host_epoch[32], host[64], out[200];
    value_of("epoch", epoch, sizeof epoch);
    value_of("host_epoch", host_epoch, sizeof host_epoch);
    value_of("host", host, sizeof host);
    value_of("out", out, sizeof out);
    pid_t child = fork();
    if (child == 0) {
        setsid();
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++)
            dup2(null, fd);
        execl(self, self, "run", epoch, host_epoch, host, out, (char *)NULL);
        _exit(9);
    }
    puts(child > 0 ? "{\"result\":\"started\"}" : "{\"result\":\"refused\",\"because\":\"no process\"}");
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "run") == 0)
        return run(argv);
    if (argc != 2)
        return 2;
    size_t got = fread(request, 1, sizeof request - 1, stdin);
    request[got] = 0;
    char epoch[32] = "", host_epoch[32] = "", self[512] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0)
        return 2;
    const char *verb = argv[1];
    if (strcmp(verb, "start") == 0) {
        start(self);
    } else if (strcmp(verb, "observe") == 0) {
        if (find(0, epoch, host_epoch))
            printf("{\"result\":\"running\",\"epoch\":%s,\"host_epoch\":%s,\"begin\":\"running\"}\n", epoch, host_epoch);
        else
            puts("{\"result\":\"absent\"}");
    } else if (strcmp(verb, "kill") == 0 || strcmp(verb, "stop") == 0) {
        find(1, epoch, host_epoch);
        puts(verb[0] == 'k' ? "{\"result\":\"killed\"}" : "{\"result\":\"flushed\"}");
    } else {
        puts("{\"result\":\"ok\",\"notes\":[]}");
    }
    return 0;
}
