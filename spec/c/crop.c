/* The random crops that training takes: always within the image, areas and shapes within their
 * limits and evenly distributed, and the largest crop in the middle where no random one fits. */
#include <math.h>

#include "check.h"
#include "data/sample.h"

enum { DRAWS = 20000 };

static int is_even(void) {
  double area = 0, log_shape = 0, x = 0, y = 0, flips = 0;
  int free = 0, small = 0;
  for (int i = 0; i < DRAWS; i++) {
    int flip;
    mptl_box p = mptl_crop_draw(&flip, 500, 500, 1, 0, i);
    CHECK(p.x >= 0 && p.y >= 0 && p.width > 0 && p.height > 0 && p.x + p.width <= 500 &&
          p.y + p.height <= 500);
    double share = p.width * p.height / 250000.0, shape = log((double)p.width / p.height);
    CHECK(share > 0.079 && share <= 1);
    CHECK(fabs(shape) < log(4.0 / 3.0) + 0.01);
    area += share / DRAWS;
    small += share < 0.54;
    log_shape += shape / DRAWS;
    flips += (double)flip / DRAWS;
    if (p.width < 500 && p.height < 500) {
      x += p.x / (500.0 - p.width);
      y += p.y / (500.0 - p.height);
      free++;
    }
  }
  /* The means that torchvision's own algorithm gives: long crops of nearly all of the area do not
   * fit. */
  CHECK(fabs(area - 0.478) < 0.006);
  CHECK(fabs(small / (double)DRAWS - 0.582) < 0.012);
  CHECK(fabs(log_shape) < 0.01);
  CHECK(fabs(flips - 0.5) < 0.015);
  CHECK(fabs(x / free - 0.5) < 0.015 && fabs(y / free - 0.5) < 0.015);
  return 0;
}

static int is_a_function_of_its_arguments(void) {
  int flip;
  mptl_box a = mptl_crop_draw(&flip, 640, 480, 1, 2, 3),
           again = mptl_crop_draw(&flip, 640, 480, 1, 2, 3);
  CHECK(a.x == again.x && a.y == again.y && a.width == again.width && a.height == again.height);
  mptl_box seed = mptl_crop_draw(&flip, 640, 480, 2, 2, 3),
           epoch = mptl_crop_draw(&flip, 640, 480, 1, 3, 3);
  mptl_box index = mptl_crop_draw(&flip, 640, 480, 1, 2, 4);
  CHECK(a.x != seed.x && a.x != epoch.x && a.x != index.x);
  return 0;
}

static int falls_back_to_the_middle(void) {
  for (int i = 0; i < 100; i++) {
    int flip;
    mptl_box wide = mptl_crop_draw(&flip, 1000, 9, 1, 0, i),
             high = mptl_crop_draw(&flip, 9, 1001, 1, 0, i);
    CHECK(wide.x == 494 && wide.y == 0 && wide.width == 12 && wide.height == 9);
    CHECK(high.x == 0 && high.y == 494 && high.width == 9 && high.height == 12);
    mptl_box dot = mptl_crop_draw(&flip, 1, 1, 1, 0, i);
    CHECK(dot.x == 0 && dot.y == 0 && dot.width == 1 && dot.height == 1);
  }
  return 0;
}

int main(void) {
  return is_even() || is_a_function_of_its_arguments() || falls_back_to_the_middle();
}
