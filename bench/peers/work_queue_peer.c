/* work_queue_peer COUNT PORT_FILE COMMAND: a manager of Work Queue that has COMMAND run COUNT times by
 * the one worker that connects to the port it writes to PORT_FILE, and takes what each run has
 * printed. Prints the tasks per second from the worker's arrival on. */
#include <cctools/work_queue.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int count = atoi(argv[1]);
  struct work_queue* queue = work_queue_create(WORK_QUEUE_RANDOM_PORT);
  if (!queue) return 1;
  FILE* port = fopen(argv[2], "w");
  if (!port) return 1;
  fprintf(port, "%d\n", work_queue_port(queue));
  fclose(port);
  struct work_queue_stats stats = {0};
  for (const double limit = now() + 30; stats.workers_connected < 1; work_queue_get_stats(queue, &stats)) {
    if (now() > limit) return 1;
    work_queue_wait(queue, 1);
  }
  const double begin = now();
  for (int i = 0; i < count; ++i) {
    struct work_queue_task* task = work_queue_task_create(argv[3]);
    work_queue_task_specify_cores(task, 1);
    work_queue_task_specify_memory(task, 1);
    work_queue_task_specify_disk(task, 1);
    work_queue_submit(queue, task);
  }
  for (int done = 0; done < count;) {
    struct work_queue_task* task = work_queue_wait(queue, 10);
    if (!task) continue;
    if (task->result != WORK_QUEUE_RESULT_SUCCESS || task->return_status != 0) return 1;
    work_queue_task_delete(task);
    ++done;
  }
  printf("%.1f\n", count / (now() - begin));
  work_queue_delete(queue);
  return 0;
}
