/* What the find_peaks functions of backends (backend.h) share: running a job repeatedly, and a
 * convolution that uses all of a device. */
#ifndef MPTL_BACKEND_PEAKS_H
#define MPTL_BACKEND_PEAKS_H

#include "backend/shapes.h"
#include "backend/backend.h"
#include "mptl/device.h"

/* Starts one run of a job. The device may still be at work when it returns. */
typedef mptl_status mptl_peak_job(void *state);

/* Sets *best to the least seconds of a run. Repeats turns until `seconds` are over, at least one. A
 * turn starts a job several times and waits for the device once. Turns grow to some milliseconds,
 * so that the time of starting and waiting does not count. */
MPTL_API mptl_status mptl_peak_time(double *best, mptl_peak_job *job, void *state,
                                    mptl_device *device, double seconds);

/* The state of a copying job: two arrays of `bytes` in the device's memory. */
typedef struct mptl_peak_copy {
  mptl_device *device;
  char *to, *from;
  size_t bytes;
} mptl_peak_copy;

/* Sets the peak of copying: 2 bytes moved for each byte copied. job gets a mptl_peak_copy. Fails
 * with MPTL_ENOMEM. */
MPTL_API mptl_status mptl_peak_of_copy(mptl_peaks *peaks, mptl_peak_job *job, size_t bytes,
                                       mptl_device *device, double seconds);

/* A 3x3 convolution with 128 input and output channels, of images of 16 x 16 pixels. */
MPTL_API mptl_conv_shape mptl_peak_shape(int images);

/* The elements of its input (and of its output) and of its weights, and the operations of a pass:
 * multiplications and additions. */
MPTL_API size_t mptl_peak_values(const mptl_conv_shape *shape);
MPTL_API size_t mptl_peak_weights(const mptl_conv_shape *shape);
MPTL_API double mptl_peak_operations(const mptl_conv_shape *shape);

/* Adds the peak of a type of multiplication, from the operations and the seconds of a run. */
MPTL_API void mptl_peak_add(mptl_peaks *peaks, const char *name, double operations, double seconds);

#endif
