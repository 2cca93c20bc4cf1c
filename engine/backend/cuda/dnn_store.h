/* Files of plans and refusals as text, one file for each: below $MPTL_CUDA_PLANS, else below
 * $XDG_CACHE_HOME/mptl/plans, else below ~/.cache/mptl/plans. MPTL_CUDA_PLANS=none switches files
 * off.
 *
 * A file begins with everything on which its plan depends and ends with a checksum. It is used only
 * if all of this is the same and the file is whole. Unreadable and outdated files, and folders that
 * cannot be written, are ignored. Threads and processes may use a folder at the same time: a file
 * is written under a temporary name and then renamed.
 */
#ifndef MPTL_BACKEND_CUDA_DNN_STORE_H
#define MPTL_BACKEND_CUDA_DNN_STORE_H

#include "backend/cuda/dnn_key.h"

/* The files of a device. */
typedef struct mptl_dnn_store mptl_dnn_store;

/* libraries: their versions, "cuDNN 9.19.0, NVRTC 13.0". device: text or JSON with everything on
 * which plans depend. Returns NULL if files are not used. */
mptl_dnn_store *mptl_dnn_store_open(const char *libraries, const char *device);
void mptl_dnn_store_close(mptl_dnn_store *store); /* NULL is allowed */

/* Reads the text of a key's plan or refusal, which the caller frees; false: there is none. store
 * may be NULL. */
bool mptl_dnn_store_read(mptl_dnn_text *text, const mptl_dnn_store *store, const mptl_dnn_key *key);

/* Writes or replaces the file of a key; errors are ignored. store may be NULL. */
void mptl_dnn_store_write(const mptl_dnn_text *text, const mptl_dnn_store *store,
                          const mptl_dnn_key *key);

#endif
