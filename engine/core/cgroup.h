/* Control groups of Linux, versions 1 and 2: the folders whose limits apply to this process. */
#ifndef MPTL_CORE_CGROUP_H
#define MPTL_CORE_CGROUP_H

#include <stdbool.h>

enum { MPTL_PATH_BYTES = 4096 };

/* Calls visit for the folders of a controller ("cpu", "memory"): the control group of this process,
 * then those that contain it, as far as a container shows them. root is put before /proc and the
 * mount points. */
void mptl_cgroup_visit(const char *root, const char *controller,
                       void (*visit)(void *context, const char *folder, bool version2),
                       void *context);

/* Reads the first line of FOLDER/NAME into text, without the newline; false if there is none. */
bool mptl_cgroup_read(const char *folder, const char *name, char *text, int size);

#endif
