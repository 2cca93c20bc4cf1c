/* Plans and refusals that outlive the process, as text, one file for each: below $MPTL_CUDA_PLANS, else
 * $XDG_CACHE_HOME/mptl/plans, else ~/.cache/mptl/plans. MPTL_CUDA_PLANS=none switches files off.
 *
 * A file begins with everything that its plan depends on and ends with a checksum. It is used only where
 * all of that is the same and the file is whole. An unreadable or stale file, or a folder that cannot be
 * written, is ignored. Threads and processes may use a folder at the same time: a file is written under
 * a name of its own and then renamed.
 */
#ifndef MPTL_BACKEND_CUDA_DNN_STORE_H
#define MPTL_BACKEND_CUDA_DNN_STORE_H

#include "backend/cuda/dnn_key.h"

/* The files of a device. */
typedef struct mptl_dnn_store mptl_dnn_store;

/* libraries: versions, "cuDNN 9.19.0, NVRTC 13.0". device: text, or JSON, with everything in it that
 * plans depend on. NULL: no files are used. */
mptl_dnn_store *mptl_dnn_store_open(const char *libraries, const char *device);
void mptl_dnn_store_close(mptl_dnn_store *store); /* NULL is allowed */

/* The text of a key's plan, which the caller frees; false: there is none. store may be NULL. */
bool mptl_dnn_store_read(mptl_dnn_text *text, const mptl_dnn_store *store, const mptl_dnn_key *key);

/* Writes or replaces the file of a key, if that is possible. store may be NULL. */
void mptl_dnn_store_write(const mptl_dnn_text *text, const mptl_dnn_store *store, const mptl_dnn_key *key);

#endif
