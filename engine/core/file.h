/* Inside files: the last step of replacing one. */
#ifndef MPTL_CORE_FILE_H
#define MPTL_CORE_FILE_H

/* Renames a file that is on the disk, and syncs the directory; 0, or -1 with errno. */
int mptl_file_rename(const char *from, const char *to);

#endif
