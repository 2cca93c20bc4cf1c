/* Exact numbers from text, in time that is proportional to its length.
 *
 * Decimal digits from 10^48 down to 10^-225 are kept. A number with a digit above 10^48 is huge: it
 * overflows every format. A digit below 10^-225 only sets the sticky bit: a fraction of 224 bits
 * has at most 224 decimal digits, so dropping later digits never changes the bits, only whether
 * something is below them. */
#include <string.h>
#include <strings.h>

#include "format/exact.h"

enum {
  FIRST = 48,    /* power of ten of the highest digit that is kept */
  DIGITS = 9,    /* decimal digits in a word */
  FRACTION = 25, /* words of the fraction */
};

static const uint32_t word_base = 1000000000;
static const int64_t far = (int64_t)1 << 48; /* the largest exponent: longer texts do not exist */

/* The mantissa of a text. */
typedef struct mantissa {
  const char *digits;
  size_t n, whole; /* bytes, with the point; digits before the point */
  bool any;        /* whether there is a digit */
} mantissa;

static int digit_value(char c, int base) {
  int value = c >= '0' && c <= '9'   ? c - '0'
              : c >= 'a' && c <= 'f' ? c - 'a' + 10
              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                     : 99;
  return value < base ? value : -1;
}

static mantissa read_mantissa(const char **text, const char *end, int base) {
  mantissa m = {.digits = *text};
  bool point = false;
  const char *p = *text;
  for (; p < end; p++) {
    if (*p == '.' && !point) {
      point = true;
    } else if (digit_value(*p, base) >= 0) {
      m.any = true;
      if (!point) m.whole++;
    } else {
      break;
    }
  }
  m.n = (size_t)(p - *text);
  *text = p;
  return m;
}

/* Reads an exponent that is the rest of the text: the letter in either case, an optional sign, and
 * digits. false for anything else. */
static bool read_exponent(const char **text, const char *end, char letter, int64_t *exponent) {
  const char *p = *text;
  if (p == end || (*p | 0x20) != letter) return false;
  p++;
  bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) p++;
  if (p == end) return false;
  *exponent = 0;
  for (; p < end; p++) {
    int digit = digit_value(*p, 10);
    if (digit < 0) return false;
    *exponent = *exponent < far ? 10 * *exponent + digit : far;
  }
  if (negative) *exponent = -*exponent;
  *text = p;
  return true;
}

static void add_hexadecimal(mptl_exact *x, mantissa m, int64_t exponent) {
  int64_t bit = 4 * ((int64_t)m.whole - 1) + exponent + MPTL_EXACT_FRACTION_BITS;
  for (size_t i = 0; i < m.n; i++) {
    int digit = digit_value(m.digits[i], 16);
    if (digit < 0) continue; /* the point */
    if (digit > 0)
      mptl_exact_add(x, (uint64_t)digit, bit < -64 ? -64 : bit > 1024 ? 1024 : (int)bit);
    bit -= 4;
  }
}

/* Adds a decimal fraction, nine digits in each word, to x, whose fraction is 0. A multiplication by
 * 2^32 makes the next 32 bits the carry. */
static void add_fraction(mptl_exact *x, uint32_t fraction[FRACTION]) {
  int used = FRACTION;
  for (int word = MPTL_EXACT_FRACTION_BITS / 32 - 1; word >= 0; word--) {
    uint64_t carry = 0;
    while (used > 0 && fraction[used - 1] == 0) used--;
    for (int i = used - 1; i >= 0; i--) {
      uint64_t product = ((uint64_t)fraction[i] << 32) + carry;
      fraction[i] = (uint32_t)(product % word_base);
      carry = product / word_base;
    }
    x->words[word] = (uint32_t)carry;
  }
  for (int i = 0; i < used; i++) x->sticky |= fraction[i] != 0;
}

/* Appends a decimal digit to x's whole part. */
static void push_digit(mptl_exact *x, int digit) {
  uint64_t carry = (uint64_t)digit;
  for (int word = MPTL_EXACT_FRACTION_BITS / 32; word < MPTL_EXACT_WORDS; word++) {
    uint64_t product = (uint64_t)x->words[word] * 10 + carry;
    x->words[word] = (uint32_t)product;
    carry = product >> 32;
  }
  if (carry) mptl_exact_set_huge(x);
}

static void add_decimal(mptl_exact *x, mantissa m, int64_t exponent) {
  static const uint32_t weights[DIGITS] = {100000000, 10000000, 1000000, 100000, 10000,
                                           1000,      100,      10,      1};
  uint32_t fraction[FRACTION] = {0};
  int64_t power = (int64_t)m.whole - 1 + exponent; /* of ten, of the next digit */
  int64_t missing = -1; /* the power of the digit that the whole part needs next; -1: none */
  for (size_t i = 0; i < m.n; i++) {
    int digit = digit_value(m.digits[i], 10);
    if (digit < 0) continue;
    if (digit > 0 && power > FIRST) {
      mptl_exact_set_huge(x);
      return;
    }
    if (power >= 0 && power <= FIRST) {
      push_digit(x, digit);
      missing = power - 1;
    } else if (power < 0 && power >= -DIGITS * FRACTION) {
      fraction[(-power - 1) / DIGITS] += (uint32_t)digit * weights[(-power - 1) % DIGITS];
    } else if (digit > 0) {
      x->sticky = true;
    }
    power--;
  }
  for (; missing >= 0; missing--) push_digit(x, 0); /* the zeros of "12e3" */
  add_fraction(x, fraction);
}

static bool is_word(const char *text, const char *end, const char *word) {
  size_t n = strlen(word);
  return (size_t)(end - text) == n && strncasecmp(text, word, n) == 0;
}

bool mptl_exact_parse(mptl_exact *x, const char *text, size_t n) {
  const char *end = text + n;
  bool negative = n > 0 && *text == '-';
  if (n > 0 && (*text == '-' || *text == '+')) text++;
  uint32_t sign = negative ? MPTL_F32_SIGN : 0;
  *x = (mptl_exact){.negative = negative};
  if (is_word(text, end, "inf") || is_word(text, end, "infinity")) {
    *x = mptl_exact_from_f32(sign | MPTL_F32_INF);
    return true;
  }
  if (is_word(text, end, "nan")) {
    *x = mptl_exact_from_f32(sign | MPTL_F32_INF | MPTL_F32_QUIET);
    return true;
  }
  int64_t exponent = 0;
  if (end - text > 2 && text[0] == '0' && (text[1] | 0x20) == 'x') {
    text += 2;
    mantissa m = read_mantissa(&text, end, 16);
    if (!m.any || !read_exponent(&text, end, 'p', &exponent) || text != end) return false;
    add_hexadecimal(x, m, exponent);
    return true;
  }
  mantissa m = read_mantissa(&text, end, 10);
  if (!m.any || (text != end && !read_exponent(&text, end, 'e', &exponent)) || text != end)
    return false;
  add_decimal(x, m, exponent);
  return true;
}
