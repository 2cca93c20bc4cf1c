/* /proc/self/cgroup has the control group of this process, /proc/self/mountinfo the places where
 * control groups are mounted. */
#include "core/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Cuts a line at separators into at most `most` pieces, in place; the last piece keeps the
 * separators that are left. Returns the number of pieces. */
static int split(char *line, char separator, char **pieces, int most) {
  int n = 0;
  for (char *p = line; p != NULL && n < most; n++) {
    pieces[n] = p;
    p = n + 1 < most ? strchr(p, separator) : NULL;
    if (p != NULL) *p++ = '\0';
  }
  return n;
}

/* Whether a word is in a comma-separated list. */
static bool has_word(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *p = list; (p = strstr(p, word)) != NULL; p += n)
    if ((p == list || p[-1] == ',') && (p[n] == ',' || p[n] == '\0')) return true;
  return false;
}

/* Decodes \ooo in place: mountinfo writes space, tab, newline and backslash so. */
static void unescape(char *text) {
  char *to = text;
  for (const char *p = text; *p != '\0'; p++) {
    bool octal = *p == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' &&
                 p[3] >= '0' && p[3] <= '7';
    *to++ = octal ? (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0')) : *p;
    if (octal) p += 3;
  }
  *to = '\0';
}

static FILE *open_proc(const char *root, const char *name) {
  char path[MPTL_PATH_BYTES];
  snprintf(path, sizeof path, "%s/proc/self/%s", root, name);
  return fopen(path, "r");
}

/* Finds the path of this process's control group in the hierarchy of a controller; false if it is
 * in none. */
static bool find_group(const char *root, const char *controller, bool version2,
                       char path[MPTL_PATH_BYTES]) {
  char *line = NULL, *pieces[3];
  size_t size = 0;
  bool found = false;
  FILE *f = open_proc(root, "cgroup");
  while (f != NULL && !found && getline(&line, &size, f) > 0) {
    line[strcspn(line, "\n")] = '\0';
    if (split(line, ':', pieces, 3) != 3) continue;
    found = version2 ? strcmp(pieces[0], "0") == 0 && pieces[1][0] == '\0'
                     : has_word(pieces[1], controller);
    if (found) snprintf(path, MPTL_PATH_BYTES, "%s", pieces[2]);
  }
  if (f != NULL) fclose(f);
  free(line);
  return found;
}

/* Finds where the hierarchy is mounted, `at`, and which path in it is visible there, `shows`; false
 * if it is not mounted. */
static bool find_mount(const char *root, const char *controller, bool version2,
                       char at[MPTL_PATH_BYTES], char shows[MPTL_PATH_BYTES]) {
  char *line = NULL, *front[6], *back[3];
  size_t size = 0;
  bool found = false;
  FILE *f = open_proc(root, "mountinfo");
  while (f != NULL && !found && getline(&line, &size, f) > 0) {
    line[strcspn(line, "\n")] = '\0';
    char *dash = strstr(line, " - ");
    if (dash == NULL || split(dash + 3, ' ', back, 3) != 3) continue;
    *dash = '\0';
    if (split(line, ' ', front, 6) != 6) continue;
    found = version2 ? strcmp(back[0], "cgroup2") == 0
                     : strcmp(back[0], "cgroup") == 0 && has_word(back[2], controller);
    if (!found) continue;
    unescape(front[3]);
    unescape(front[4]);
    snprintf(shows, MPTL_PATH_BYTES, "%s", front[3]);
    snprintf(at, MPTL_PATH_BYTES, "%s", front[4]);
  }
  if (f != NULL) fclose(f);
  free(line);
  return found;
}

/* The path of a control group relative to the mount point: the path without the part `shows`, or ""
 * if the group is outside that part. */
static const char *below(const char *path, const char *shows) {
  size_t n = strlen(shows);
  if (strcmp(shows, "/") == 0) return path;
  return strncmp(path, shows, n) == 0 && (path[n] == '/' || path[n] == '\0') ? path + n : "";
}

void mptl_cgroup_visit(const char *root, const char *controller,
                       void (*visit)(void *context, const char *folder, bool version2),
                       void *context) {
  for (int version = 1; version <= 2; version++) {
    char path[MPTL_PATH_BYTES], at[MPTL_PATH_BYTES], shows[MPTL_PATH_BYTES],
        folder[3 * MPTL_PATH_BYTES];
    if (!find_group(root, controller, version == 2, path) ||
        !find_mount(root, controller, version == 2, at, shows))
      continue;
    size_t mount = (size_t)snprintf(folder, sizeof folder, "%s%s", root, at);
    snprintf(folder + mount, sizeof folder - mount, "%s", below(path, shows));
    size_t n = strlen(folder);
    while (n > mount && folder[n - 1] == '/') folder[--n] = '\0';
    while (true) {
      visit(context, folder, version == 2);
      if (strlen(folder) <= mount) break;
      *strrchr(folder, '/') = '\0';
    }
  }
}

bool mptl_cgroup_read(const char *folder, const char *name, char *text, int size) {
  char path[4 * MPTL_PATH_BYTES];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "r");
  if (f == NULL) return false;
  bool read = fgets(text, size, f) != NULL;
  fclose(f);
  if (read) text[strcspn(text, "\n")] = '\0';
  return read;
}
