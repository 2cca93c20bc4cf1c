/* What `mptl data check` and `import` report about images: whether each can be decoded, how large
 * it is, sums over its pixels. */
#ifndef MPTL_SURVEY_H
#define MPTL_SURVEY_H

#include "mptl/data.h"
#include "mptl/file.h"
#include "mptl/images.h"

typedef struct mptl_image_facts {
  int32_t width, height;       /* pixels; 0 when the image cannot be read or decoded */
  int32_t warnings;            /* of the decoder; none of them affects the pixels */
  uint64_t sum[3], squares[3]; /* of the bytes of all pixels: red, green, blue */
  uint64_t hash;               /* of the encoded image, or of the pixels in memory; 0 when it cannot be read */
  char problem[192];           /* why it cannot be read or decoded, else "" */
} mptl_image_facts;

/* Finds the facts of n images, from number first on, which must be within the collection or set.
 * threads is at least 1 and does not change the results. MPTL_ENOMEM; MPTL_EINVAL for a data set
 * that is not in memory. An image that is bad is no error: its facts say so. */
MPTL_API mptl_status mptl_survey_images(mptl_image_facts *facts, const mptl_images *images, int64_t first, int64_t n,
                                        int threads);
MPTL_API mptl_status mptl_survey_encoded(mptl_image_facts *facts, const mptl_bytes *encoded, int64_t n, int threads);
MPTL_API mptl_status mptl_survey_dataset(mptl_image_facts *facts, const mptl_dataset *dataset, int64_t first, int64_t n);

#endif
