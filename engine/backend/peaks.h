/* What backends' find_peaks (backend.h) is made of: a job that is run again and again, and the convolution that fills a device. */
#ifndef MPTL_BACKEND_PEAKS_H
#define MPTL_BACKEND_PEAKS_H

#include "backend/shapes.h"
#include "backend/backend.h"
#include "mptl/device.h"

typedef mptl_status mptl_peak_job(void *state);

/* *best: seconds of a run, the least that was found within `seconds`, or in one turn. Runs that are short are many to a turn, which ends
 * when the device has done them, so that starting them and waiting for them do not count. */
MPTL_API mptl_status mptl_peak_time(double *best, mptl_peak_job *job, void *state, mptl_device *device, double seconds);

/* What a copying job gets: so many bytes, twice, of the device's memory. */
typedef struct mptl_peak_copy {
  mptl_device *device;
  char *to, *from;
  size_t bytes;
} mptl_peak_copy;

/* Sets the rate of copying; job runs on a mptl_peak_copy. */
MPTL_API mptl_status mptl_peak_of_copy(mptl_peaks *peaks, mptl_peak_job *job, size_t bytes, mptl_device *device, double seconds);

/* A 3x3 convolution of 128 channels, 16 x 16 pixels. */
MPTL_API mptl_conv_shape mptl_peak_shape(int images);

/* Its operands in elements, and the operations of a pass: products and additions. */
MPTL_API size_t mptl_peak_values(const mptl_conv_shape *shape); /* input; output */
MPTL_API size_t mptl_peak_weights(const mptl_conv_shape *shape);
MPTL_API double mptl_peak_operations(const mptl_conv_shape *shape);

/* Adds a type's rate. */
MPTL_API void mptl_peak_add(mptl_peaks *peaks, const char *name, double operations, double seconds);

#endif
