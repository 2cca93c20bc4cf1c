/* What `mptl data check` and `import` report about images: whether they can be decoded, their
 * sizes, sums over their pixels. */
#ifndef MPTL_SURVEY_H
#define MPTL_SURVEY_H

#include "mptl/data.h"
#include "mptl/file.h"
#include "mptl/images.h"

typedef struct mptl_image_facts {
  int32_t width, height;       /* pixels; 0: the image cannot be read or decoded */
  int32_t warnings;            /* of the decoder; they do not affect the pixels */
  uint64_t sum[3], squares[3]; /* of the bytes of all pixels: red, green, blue */
  uint64_t hash;     /* of the encoded image, or of the pixels in memory; 0: it cannot be read */
  char problem[192]; /* why it cannot be read or decoded; else "" */
} mptl_image_facts;

/* Finds the facts of n images, from number `first` on, which the collection or set must have.
 * threads is at least 1 and does not change the results. MPTL_ENOMEM; MPTL_EINVAL for a data set
 * that is not in memory. A bad image is no error: its facts say that it is bad. */
MPTL_API mptl_status mptl_survey_images(mptl_image_facts *facts, const mptl_images *images,
                                        int64_t first, int64_t n, int threads);
MPTL_API mptl_status mptl_survey_encoded(mptl_image_facts *facts, const mptl_bytes *encoded,
                                         int64_t n, int threads);
MPTL_API mptl_status mptl_survey_dataset(mptl_image_facts *facts, const mptl_dataset *dataset,
                                         int64_t first, int64_t n);

#endif
