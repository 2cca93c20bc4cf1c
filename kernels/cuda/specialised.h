/* Specialised stages: stages whose instructions are known when the kernels are compiled.
 *
 * The signature of a stage is one number that has a byte for each instruction: the opcode in the
 * lower four bits, the flags in the upper four. The signatures of the stages that usual networks
 * have are template parameters of kernels, which read neither opcodes nor flags from memory.
 */
#ifndef MPTL_KERNELS_CUDA_SPECIALISED_H
#define MPTL_KERNELS_CUDA_SPECIALISED_H

#include "kernels/cuda/stage.h"

enum { MPTL_SIGNATURE_INSTRUCTIONS = 8 }; /* the most instructions that a signature has room for */

#define MPTL_INSTRUCTION_BYTE(opcode, flags) ((uint64_t)((opcode) | (flags) << 4))

static_assert(MPTL_INS_RELU_BACKWARD < 16 && MPTL_INS_STORE < 16,
              "an instruction of a signature is a byte");

/* Makes a signature from the bytes of instructions. The first instruction is the lowest byte. */
template <typename... Bytes>
constexpr uint64_t mptl_signature(uint64_t first, Bytes... more) {
  if constexpr (sizeof...(more) == 0)
    return first;
  else
    return first | mptl_signature(more...) << 8;
}

/* The instructions in the signatures of specialised stages. */
namespace mptl_instruction_bytes {

constexpr uint64_t load = MPTL_INSTRUCTION_BYTE(MPTL_INS_LOAD, MPTL_INS_READ);
constexpr uint64_t push_load = MPTL_INSTRUCTION_BYTE(MPTL_INS_LOAD, MPTL_INS_PUSH | MPTL_INS_READ);
constexpr uint64_t bn = MPTL_INSTRUCTION_BYTE(MPTL_INS_BATCHNORM, 0);
constexpr uint64_t store_bn = MPTL_INSTRUCTION_BYTE(MPTL_INS_BATCHNORM, MPTL_INS_STORE);
constexpr uint64_t store_relu = MPTL_INSTRUCTION_BYTE(MPTL_INS_RELU, MPTL_INS_STORE);
constexpr uint64_t add_below = MPTL_INSTRUCTION_BYTE(MPTL_INS_ADD, 0);
constexpr uint64_t add = MPTL_INSTRUCTION_BYTE(MPTL_INS_ADD, MPTL_INS_READ);
constexpr uint64_t store_add = MPTL_INSTRUCTION_BYTE(MPTL_INS_ADD, MPTL_INS_READ | MPTL_INS_STORE);
constexpr uint64_t through_relu = MPTL_INSTRUCTION_BYTE(MPTL_INS_RELU_BACKWARD, MPTL_INS_READ);
constexpr uint64_t through_bn =
    MPTL_INSTRUCTION_BYTE(MPTL_INS_BATCHNORM_BACKWARD, MPTL_INS_READ | MPTL_INS_STORE);
constexpr uint64_t take = MPTL_INSTRUCTION_BYTE(MPTL_INS_TAKE, 0);
constexpr uint64_t store = MPTL_INSTRUCTION_BYTE(MPTL_INS_TAKE, MPTL_INS_STORE);
constexpr uint64_t push_take = MPTL_INSTRUCTION_BYTE(MPTL_INS_TAKE, MPTL_INS_PUSH);
constexpr uint64_t pop_take = MPTL_INSTRUCTION_BYTE(MPTL_INS_TAKE, MPTL_INS_POP);

}  // namespace mptl_instruction_bytes

/* Computes the signature of a list. Returns false if it has none: there are too many instructions,
 * or an opcode does not fit into four bits. */
static inline bool mptl_signature_of(uint64_t *signature, const mptl_instruction_list *list) {
  *signature = 0;
  if (list->n > MPTL_SIGNATURE_INSTRUCTIONS) return false;
  for (int j = 0; j < list->n; j++) {
    if (list->at[j].opcode >= 16) return false;
    *signature |= MPTL_INSTRUCTION_BYTE(list->at[j].opcode, list->at[j].flags) << 8 * j;
  }
  return true;
}

/* Returns the kernel of a specialised stage; NULL: the list, which is plain, belongs to none. */
typedef void mptl_specialised_kernel(mptl_instruction_list list);
mptl_specialised_kernel *mptl_find_specialised(const mptl_instruction_list *list);

constexpr __host__ __device__ unsigned mptl_opcode_at(uint64_t signature, int j) {
  return signature >> 8 * j & 0xf;
}
constexpr __host__ __device__ unsigned mptl_flags_at(uint64_t signature, int j) {
  return signature >> 8 * j >> 4 & 0xf;
}

#endif
