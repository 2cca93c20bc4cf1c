/* Plans, and refusals, that outlive the process, as text, a file each: below $MPTL_CUDA_PLANS, else $XDG_CACHE_HOME/mptl/plans, else
 * ~/.cache/mptl/plans. With MPTL_CUDA_PLANS=none there are none.
 *
 * A file begins with all that its plan depends on, and ends with a checksum: it is taken only where all of that is the same, and whole.
 * Whatever is wrong with one, or with their folder, is no error: it is as if there were none. Processes may use a folder side by side.
 */
#ifndef MPTL_BACKEND_CUDA_DNN_STORE_H
#define MPTL_BACKEND_CUDA_DNN_STORE_H

#include "backend/cuda/dnn_graph.h"

/* device: words, or JSON, of all in it that decides for plans. NULL: nothing is kept. */
mptl_dnn_store *mptl_dnn_store_open(const char *device);
void mptl_dnn_store_close(mptl_dnn_store *store); /* NULL is allowed */

/* The text of a key's plan, which the caller frees; false: there is none. store may be NULL. */
bool mptl_dnn_store_read(mptl_dnn_text *text, const mptl_dnn_store *store, const mptl_dnn_key *key);

/* Writes a key's plan, if that can be done; in place of the file that is there. */
void mptl_dnn_store_write(const mptl_dnn_text *text, const mptl_dnn_store *store, const mptl_dnn_key *key);

#endif
