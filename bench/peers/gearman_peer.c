/* gearman_peer PORT FUNCTION COUNT [background]: gives COUNT jobs to a Gearman server, and prints how
 * many were done in a second. Those in the background are the ones that a durable queue keeps; that
 * all of them are done is seen when the server has none left. */
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* What the server's `status` says of FUNCTION's jobs, waiting and running. */
static int jobs_left(int port, const char* function) {
  static char text[65536];
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0 || write(fd, "status\n", 7) != 7) exit(1);
  size_t size = 0;
  while (size < sizeof text - 1) {
    ssize_t got = read(fd, text + size, sizeof text - 1 - size);
    if (got <= 0) break;
    size += (size_t)got;
    text[size] = 0;
    if (strstr(text, ".\n")) break;
  }
  close(fd);
  for (char* line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    size_t name = strlen(function);
    if (strncmp(line, function, name) == 0 && line[name] == '\t') return atoi(line + name + 1);
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const int port = atoi(argv[1]), count = atoi(argv[3]);
  gearman_client_st* client = gearman_client_create(NULL);
  if (!client || gearman_client_add_server(client, "127.0.0.1", (in_port_t)port) != GEARMAN_SUCCESS) return 1;
  const double begin = now();
  gearman_client_set_options(client, GEARMAN_CLIENT_FREE_TASKS);
  for (int i = 0; i < count; ++i) {
    gearman_return_t status;
    char unique[32];
    snprintf(unique, sizeof unique, "%ld-%d", (long)getpid(), i);
    if (argc > 4) {
      gearman_client_add_task_background(client, NULL, NULL, argv[2], unique, NULL, 0, &status);
    } else {
      gearman_client_add_task(client, NULL, NULL, argv[2], unique, NULL, 0, &status);
    }
    if (gearman_failed(status)) { fprintf(stderr, "add %d: %d %s\n", i, status, gearman_client_error(client)); return 1; }
  }
  if (gearman_client_run_tasks(client) != GEARMAN_SUCCESS) {
    fprintf(stderr, "%s\n", gearman_client_error(client));
    return 1;
  }
  while (argc > 4 && jobs_left(port, argv[2]) > 0) usleep(2000);
  printf("%.1f\n", count / (now() - begin));
  gearman_client_free(client);
  return 0;
}
