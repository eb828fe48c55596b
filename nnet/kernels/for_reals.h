/* Includes TEMPLATE twice: there `real` is float, then double. Needs simd.h.
 *
 * OF(name) is name32 or name64, `vec` a vector of reals, `integer` what has the bits of one.
 */
#define real float
#define integer int32_t
#define BITS 32
#define OF(name) name##32
#define vec vec32
#define STAGES STAGES_32
#include TEMPLATE
#undef real
#undef integer
#undef BITS
#undef OF
#undef vec
#undef STAGES

#define real double
#define integer int64_t
#define BITS 64
#define OF(name) name##64
#define vec vec64
#define STAGES STAGES_64
#include TEMPLATE
#undef real
#undef integer
#undef BITS
#undef OF
#undef vec
#undef STAGES
#undef TEMPLATE
