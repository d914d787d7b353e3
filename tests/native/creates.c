/* Does one thing to a path as native code would, and ends with the errno of what failed, or with 0.

   creates VERB PATH [SOURCE] */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int to_socket(const char *path, int (*call)(int, const struct sockaddr *, socklen_t))
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    return call(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}

static int to_file(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    return file ? fclose(file) : -1;
}

int main(int argc, char **argv)
{
    const char *verb = argv[1], *path = argv[2], *source = argc > 3 ? argv[3] : NULL;
    int failed = 1;
    errno = EINVAL;
    if (!strcmp(verb, "fopen")) failed = to_file(path, "w");
    if (!strcmp(verb, "append")) failed = to_file(path, "a");
    if (!strcmp(verb, "read")) failed = to_file(path, "r");
    if (!strcmp(verb, "mkdir")) failed = mkdir(path, 0700);
    if (!strcmp(verb, "mkfifo")) failed = mkfifo(path, 0600);
    if (!strcmp(verb, "mknod")) failed = mknod(path, S_IFREG | 0600, 0);
    if (!strcmp(verb, "device")) failed = mknod(path, S_IFCHR | 0600, 0);
    if (!strcmp(verb, "symlink")) failed = symlink("nowhere", path);
    if (!strcmp(verb, "link")) failed = link(source, path);
    if (!strcmp(verb, "rename")) failed = rename(source, path);
    if (!strcmp(verb, "exchange")) failed = renameat2(AT_FDCWD, source, AT_FDCWD, path, RENAME_EXCHANGE);
    if (!strcmp(verb, "unlink")) failed = unlink(path);
    if (!strcmp(verb, "bind")) failed = to_socket(path, bind);
    if (!strcmp(verb, "connect")) failed = to_socket(path, connect);
    if (!strcmp(verb, "O_TMPFILE")) failed = open(path, O_TMPFILE | O_RDWR, 0600) < 0;
    if (!strcmp(verb, "tmpfile")) failed = tmpfile() == NULL; /* in P_tmpdir, which is /tmp, whatever TMPDIR is */
    return failed ? errno : 0;
}
