// Exact attention on a CPU: softmax(q k^T * scale + bias) v, block by block, so that no scores of all places are ever in memory.
//
// Everything is done with queries as the lanes of vectors. A task is 64 queries of one head: it goes along blocks of keys,
//   S (keys x lanes)  = K Q      products of pairs along the width
//   P (keys x lanes)  = 2^(S - m)  in place; maxima and sums go along lanes, nothing is ever reduced across them
//   O (width x lanes) += V^T P   products of pairs of keys
// and divides by the sum at the end (online softmax: Milakov & Gimelshein 2018; block by block: FlashAttention, Dao et al. 2022).
// Widths like 40 waste nothing this way, nor do 77 keys. Keys, and values transposed, are packed once per head.
// The maximum m may lag behind by 2^LAG: numbers are as exact, and O is hardly ever rescaled.
//
// bf16 (accumulated in float32) with vdpbf16ps or with AMX tiles; float32 with multiply-adds. Plain C outside: no header of torch's.
// Each number depends on its own head's queries, keys and values alone, in one order: never on threads, nor on other rows.

#include <cpuid.h>
#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

// The threads of torch's own OpenMP, whichever library it came with: GNU's entry, which LLVM's and Intel's have, too.
// Weak: where there is none, the work is done by one thread.
extern "C" __attribute__((weak)) void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned);

namespace {

constexpr int LANES = 64;          // queries of a task: four vectors
constexpr int BLOCK = 128;         // keys at a time, at most: their scores (32 KiB) stay close
constexpr long NEAR = 1 << 19;     // bytes that stay close whatever is read beside them
constexpr double ALONE = 2e6;      // multiplications that are done before another thread has come (20 us or so)
constexpr float LAG = 8.0f;        // how far a maximum may lag behind, as a power of two
constexpr float LOG2E = 1.44269504088896340736f;
constexpr float LOWEST = -1e30f;   // stands for the maximum of those who hear nobody: -inf less this is -inf, and 2^-inf is 0

enum Path { FLOAT = 1, PAIRS = 2, TILES = 4 };

long up(long n, long to) { return (n + to - 1) / to * to; }

struct Array {  // (b, n, places, width), in elements; the width is contiguous
  char* data;
  long b, n, place;
};

struct Call {
  Array q, k, v, out;
  const float* bias;  // or none
  long bias_b, bias_n, bias_query, bias_key;
  long batch, heads, queries, keys, width;
  float scale;
  int path;
  // what follows from these
  long item, units, k_row, block, blocks, v_rows, k_head, v_head;  // lengths in units: one float, or a pair of bf16
  uint32_t *packed_k, *packed_v;
  std::atomic<long> to_pack, packed, next;
  std::atomic<bool> failed;
};

// ---- vectors ----

inline __mmask16 first(long n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

inline void transpose(__m512i r[16]) {  // 16 x 16
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// 2^x for x <= LAG or so. Minimax polynomials of 2^r, |r| <= 1/2, in relative error: 7.5e-8 for float32; 7.5e-5 where the answer
// is rounded to bf16, whose own rounding is 2e-3. NaN stays (the second operand of a maximum is what it answers then).
template <bool FINE>
inline __m512 power(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
  __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n), y;
  if (FINE) {
    y = _mm512_fmadd_ps(r, _mm512_set1_ps(1.3276472454890609e-3f), _mm512_set1_ps(9.675540961325169e-3f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(5.550713092088699e-2f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(2.4022120237350464e-1f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(6.931469440460205e-1f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(1.0f));
  } else {
    y = _mm512_fmadd_ps(r, _mm512_set1_ps(5.51716685295105e-2f), _mm512_set1_ps(2.426111251115799e-1f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(6.932609677314758e-1f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(9.999280571937561e-1f));
  }
  return _mm512_scalef_ps(y, n);
}

// ---- products: C (rows x lanes) from A (rows x units), read unit by unit, and B (units x lanes) ----

template <bool HALF>
inline __m512 multiplied(__m512 c, uint32_t a, __m512i b) {
  if (HALF) return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
  return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32((int)a)), _mm512_castsi512_ps(b), c);
}

// A function of its own, so that its registers are its own.
// SCORES: C = scale * A B + bias by row, and `top` its maxima. Otherwise C += A B.
template <bool HALF, bool SCORES, int M, int N>
__attribute__((noinline)) void tile(const uint32_t* a, long a_row, const uint32_t* b, long units, float* c, float scale, const float* bias, float* top) {
  __m512 acc[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[m][n] = SCORES ? _mm512_setzero_ps() : _mm512_load_ps(c + m * LANES + 16 * n);
  for (long u = 0; u < units; u++) {
    __m512i lanes[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      lanes[n] = _mm512_load_si512(b + u * LANES + 16 * n);
      __asm__("" : "+v"(lanes[n]));  // loaded once: GCC would read it again for each row
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) acc[m][n] = multiplied<HALF>(acc[m][n], a[m * a_row + u], lanes[n]);
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; n++) {
    __m512 most = SCORES ? _mm512_load_ps(top + 16 * n) : _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      if (SCORES) {
        acc[m][n] = _mm512_fmadd_ps(acc[m][n], _mm512_set1_ps(scale), _mm512_set1_ps(bias ? bias[m] : 0.0f));
        most = _mm512_max_ps(most, acc[m][n]);
      }
      _mm512_store_ps(c + m * LANES + 16 * n, acc[m][n]);
    }
    if (SCORES) _mm512_store_ps(top + 16 * n, most);
  }
}

template <bool HALF, bool SCORES, int N>
void product(const uint32_t* a, long a_row, long rows, const uint32_t* b, long units, float* c, float scale, const float* bias, float* top) {
  long i = 0;
#define ROWS(M) \
  tile<HALF, SCORES, M, N>(a + i * a_row, a_row, b, units, c + i * LANES, scale, SCORES && bias ? bias + i : nullptr, top), i += M
  while (rows - i >= 6) ROWS(6);
  if (rows - i >= 4) ROWS(4);
  if (rows - i >= 2) ROWS(2);
  if (rows - i >= 1) ROWS(1);
#undef ROWS
}

// ---- packing ----

template <bool HALF>
inline __m512i row_of(const char* from, long units, long at) {  // 16 units of one row from unit `at` on, zeros behind its end
  return _mm512_maskz_loadu_epi32(first(units - at), from + 4 * at);
}

template <bool HALF>
void pack_keys(const Call& c, const char* from, long row, uint32_t* to, long begin, long end) {  // rows behind the last are zeros
  for (long i = begin; i < end; i++)
    for (long u = 0; u < c.k_row; u += 16) {
      __m512i x = i < c.keys ? row_of<HALF>(from + i * row, c.units, u) : _mm512_setzero_si512();
      _mm512_mask_storeu_epi32(to + i * c.k_row + u, first(c.k_row - u), x);
    }
}

template <bool HALF>
void pack_values(const Call& c, const char* from, long row, uint32_t* to, long begin) {  // one block: (v_rows x units of keys)
  const long per = HALF ? 2 : 1, units = c.block / per;
  for (long j = 0; j < units; j += 16)
    for (long d = 0; d < c.v_rows; d += 16) {
      __m512i r[16];
      for (int i = 0; i < 16; i++) {
        const long key = begin + (j + i) * per;
        const __mmask16 mask = first(c.width - d);
        if (HALF) {
          const __mmask16 one = key < c.keys ? mask : 0, two = key + 1 < c.keys ? mask : 0;
          __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(one, from + key * row + 2 * d));
          __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(two, from + (key + 1) * row + 2 * d));
          r[i] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
        } else {
          r[i] = _mm512_maskz_loadu_epi32(key < c.keys ? mask : 0, from + key * row + 4 * d);
        }
      }
      transpose(r);
      for (int i = 0; i < 16; i++) _mm512_mask_storeu_epi32(to + (d + i) * units + j, first(units - j), r[i]);
    }
}

// ---- AMX ----

#ifdef TILES_IMITATED  // what the tiles do, said in plain loops: for machines that have none
struct Tile { alignas(64) uint32_t rows[16][16]; };
thread_local Tile tiles[8];
float real(uint32_t half) { half <<= 16; float x; memcpy(&x, &half, 4); return x; }
void tile_zero(int t) { memset(&tiles[t], 0, sizeof(Tile)); }
void tile_load(int t, const void* from, long stride) { for (int i = 0; i < 16; i++) memcpy(tiles[t].rows[i], (const char*)from + i * stride, 64); }
void tile_store(int t, void* to, long stride) { for (int i = 0; i < 16; i++) memcpy((char*)to + i * stride, tiles[t].rows[i], 64); }
void tile_product(int c, int a, int b) {
  for (int i = 0; i < 16; i++) for (int u = 0; u < 16; u++) for (int n = 0; n < 16; n++) {
    float x; uint32_t p = tiles[a].rows[i][u], q = tiles[b].rows[u][n];
    memcpy(&x, &tiles[c].rows[i][n], 4);
    x += real(p & 0xffff) * real(q & 0xffff), x += real(p >> 16) * real(q >> 16);
    memcpy(&tiles[c].rows[i][n], &x, 4);
  }
}
struct Configured { Configured() {} ~Configured() {} };
bool tiles_allowed() { return true; }
#else
#include <sys/syscall.h>
#include <unistd.h>
#define tile_zero _tile_zero
#define tile_load _tile_loadd
#define tile_store _tile_stored
#define tile_product _tile_dpbf16ps
struct Configured {  // eight tiles of 16 x 64 bytes; what others had configured (oneDNN remembers its own) is put back
  alignas(64) char before[64];
  Configured() {
    alignas(64) char wish[64] = {1};
    for (int t = 0; t < 8; t++) wish[16 + 2 * t] = 64, wish[48 + t] = 16;
    _tile_storeconfig(before);
    written(wish);
    _tile_loadconfig(wish);
  }
  ~Configured() {
    written(before);
    _tile_loadconfig(before);
  }
  // GCC is told that a tile's instruction reads its first bytes, or none: whatever is to be read has to be in memory by then.
  static void written(const void* p) { __asm__ volatile("" : : "r"(p) : "memory"); }
};
bool tiles_allowed() { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0; }
#endif

// C (rows x lanes) = A B, or C += A B. rows: a multiple of 16; units: of 16; lanes: 32 at a time.
template <bool ADDED>
__attribute__((noinline)) void product_of_tiles(const uint32_t* a, long a_row, long rows, const uint32_t* b, long units, float* c, int vectors) {
  const long as = a_row * 4, lanes = LANES * 4;
  __asm__ volatile("" : : : "memory");  // as in Configured
  for (long i = 0; i < rows; i += 32) {
    const bool two = rows - i > 16;
    for (int n = 0; n < vectors; n += 2) {
      float* to = c + i * LANES + 16 * n;
      if (ADDED) {
        tile_load(0, to, lanes);
        tile_load(1, to + 16, lanes);
        if (two) {
          tile_load(2, to + 16 * LANES, lanes);
          tile_load(3, to + 16 * LANES + 16, lanes);
        }
      } else {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
      }
      for (long u = 0; u < units; u += 16) {
        const uint32_t *left = a + i * a_row + u, *right = b + u * LANES + 16 * n;
        tile_load(4, left, as);
        tile_load(6, right, lanes);
        tile_load(7, right + 16, lanes);
        tile_product(0, 4, 6);
        tile_product(1, 4, 7);
        if (two) {
          tile_load(5, left + 16 * a_row, as);
          tile_product(2, 5, 6);
          tile_product(3, 5, 7);
        }
      }
      tile_store(0, to, lanes);
      tile_store(1, to + 16, lanes);
      if (two) {
        tile_store(2, to + 16 * LANES, lanes);
        tile_store(3, to + 16 * LANES + 16, lanes);
      }
    }
  }
}

// ---- a task: 64 queries of one head ----

struct Space {  // what a thread needs beside it, once for all of its tasks
  float *s, *o, *bias;
  uint32_t* q;
  alignas(64) float top[LANES], most[LANES], sum[LANES];
  char* memory;

  explicit Space(const Call& c) {
    const long q_size = up(c.units, 16) * LANES, s_size = up(c.block, 32) * LANES, o_size = c.v_rows * LANES;
    memory = (char*)aligned_alloc(64, 4 * (q_size + s_size + o_size + up(c.blocks * c.block, 16)));
    q = (uint32_t*)memory, s = (float*)memory + q_size, o = s + s_size, bias = o + o_size;
  }
  ~Space() { free(memory); }
};

template <bool HALF>
void load_queries(const Call& c, const char* from, long row, long count, uint32_t* q) {  // (units x lanes)
  for (long u = 0; u < c.units; u += 16)
    for (int n = 0; n < LANES; n += 16) {
      __m512i r[16];
      for (int i = 0; i < 16; i++) r[i] = n + i < count ? row_of<HALF>(from + (n + i) * row, c.units, u) : _mm512_setzero_si512();
      transpose(r);
      for (int i = 0; i < 16; i++) _mm512_store_si512(q + (u + i) * LANES + n, r[i]);
    }
}

template <bool HALF>
void store_answer(const Call& c, char* to, long row, long count, const float* o, const float* sum) {
  for (int n = 0; n < count; n += 16) {
    const __m512 all = _mm512_load_ps(sum + n);  // 0 for who hears nobody, whose answer is 0, as torch's is
    const __m512 share = _mm512_maskz_div_ps(_mm512_cmp_ps_mask(all, _mm512_setzero_ps(), _CMP_NEQ_UQ), _mm512_set1_ps(1.0f), all);
    for (long d = 0; d < c.width; d += 16) {
      __m512i r[16];
      for (int i = 0; i < 16; i++) r[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(o + (d + i) * LANES + n), share));
      transpose(r);
      for (int i = 0; i < 16 && n + i < count; i++) {
        char* at = to + (n + i) * row + c.item * d;
        const bool whole = c.width - d >= 16;  // storing behind a mask is slow on some
        if (HALF) {
          const __m256i x = (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(r[i]));
          whole ? _mm256_storeu_si256((__m256i*)at, x) : _mm256_mask_storeu_epi16(at, first(c.width - d), x);
        } else {
          whole ? _mm512_storeu_si512(at, r[i]) : _mm512_mask_storeu_epi32(at, first(c.width - d), r[i]);
        }
      }
    }
  }
}

// What `tile` does to scores, for those that come from elsewhere.
template <int N>
void scaled(float* s, long rows, float scale, const float* bias, float* top) {
  for (int n = 0; n < 16 * N; n += 16) {
    __m512 most = _mm512_load_ps(top + n);
    for (long j = 0; j < rows; j++) {
      const __m512 x = _mm512_fmadd_ps(_mm512_load_ps(s + j * LANES + n), _mm512_set1_ps(scale), _mm512_set1_ps(bias ? bias[j] : 0.0f));
      most = _mm512_max_ps(most, x);
      _mm512_store_ps(s + j * LANES + n, x);
    }
    _mm512_store_ps(top + n, most);
  }
}

// A bias of (queries x keys), keys contiguous; maxima are found again.
template <int N>
void added(float* s, long rows, const float* bias, long row, long count, float* top) {
  for (int n = 0; n < 16 * N; n += 16) {
    __m512 most = _mm512_set1_ps(-__builtin_inff());
    for (long j = 0; j < rows; j += 16) {
      __m512i r[16];
      for (int i = 0; i < 16; i++)
        r[i] = n + i < count ? _mm512_maskz_loadu_epi32(first(rows - j), bias + (n + i) * row + j) : _mm512_setzero_si512();
      transpose(r);
      for (int i = 0; i < 16 && j + i < rows; i++) {
        float* at = s + (j + i) * LANES + n;
        const __m512 x = _mm512_fmadd_ps(_mm512_castsi512_ps(r[i]), _mm512_set1_ps(LOG2E), _mm512_load_ps(at));
        most = _mm512_max_ps(most, x);
        _mm512_store_ps(at, x);
      }
    }
    _mm512_store_ps(top + n, most);
  }
}

// S of keys (rows) in place becomes P, by units of keys; sums are added to. A last key without a pair has a score of -inf beside it.
template <bool HALF, int N>
void exponentials(float* s, long units, const float* most, float* sum) {
  const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                         19, 3, 18, 2, 17, 1, 16, 0);
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  __m512 m[N], total[N];
  for (int n = 0; n < N; n++) {
    m[n] = _mm512_max_ps(_mm512_set1_ps(LOWEST), _mm512_load_ps(most + 16 * n));
    total[n] = _mm512_load_ps(sum + 16 * n);
  }
  for (long u = 0; u < units; u++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      float* at = s + u * LANES + 16 * n;
      if (HALF) {
        __m512 x = power<false>(_mm512_sub_ps(_mm512_load_ps(at + u * LANES), m[n]));
        __m512 y = power<false>(_mm512_sub_ps(_mm512_load_ps(at + u * LANES + LANES), m[n]));
        const __m512i both = _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(y, x));
        total[n] = _mm512_dpbf16_ps(total[n], (__m512bh)both, ones);  // of what is rounded: then shares add up to 1
        _mm512_store_si512(at, both);
      } else {
        __m512 x = power<true>(_mm512_sub_ps(_mm512_load_ps(at), m[n]));
        total[n] = _mm512_add_ps(total[n], x);
        _mm512_store_ps(at, x);
      }
    }
  for (int n = 0; n < N; n++) _mm512_store_ps(sum + 16 * n, total[n]);
}

// Where maxima grew by more than may be put off: what has been summed up is brought to the new ones.
template <int N>
void raise(float* top, float* most, float* sum, float* o, long rows) {
  __mmask16 grown = 0;
  for (int n = 0; n < N; n++)
    grown |= _mm512_cmp_ps_mask(_mm512_load_ps(top + 16 * n), _mm512_add_ps(_mm512_load_ps(most + 16 * n), _mm512_set1_ps(LAG)), _CMP_GT_OQ);
  if (!grown) return;
  for (int n = 0; n < N; n++) {
    const __m512 old = _mm512_load_ps(most + 16 * n), now = _mm512_max_ps(old, _mm512_load_ps(top + 16 * n));
    const __m512 low = _mm512_set1_ps(LOWEST);
    const __m512 factor = power<true>(_mm512_sub_ps(_mm512_max_ps(low, old), _mm512_max_ps(low, now)));
    _mm512_store_ps(most + 16 * n, now);
    _mm512_store_ps(sum + 16 * n, _mm512_mul_ps(_mm512_load_ps(sum + 16 * n), factor));
    for (long d = 0; d < rows; d++) _mm512_store_ps(o + d * LANES + 16 * n, _mm512_mul_ps(_mm512_load_ps(o + d * LANES + 16 * n), factor));
  }
}

template <bool HALF, int N>
void attend(const Call& c, Space& w, long head, long begin) {
  constexpr long per = HALF ? 2 : 1;
  const bool tiled = HALF && c.path == TILES;
  const long b = head / c.heads, n = head % c.heads, left = c.queries - begin, count = left < LANES ? left : LANES;
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  load_queries<HALF>(c, c.q.data + c.item * (b * c.q.b + n * c.q.n + begin * c.q.place), c.item * c.q.place, count, w.q);
  for (int i = 0; i < LANES; i += 16) _mm512_store_ps(w.most + i, none), _mm512_store_ps(w.sum + i, _mm512_setzero_ps());
  memset(w.o, 0, 4 * c.v_rows * LANES);
  const float* bias = c.bias ? c.bias + b * c.bias_b + n * c.bias_n + begin * c.bias_query : nullptr;
  const bool by_key = bias && !c.bias_query, by_place = bias && c.bias_query;
  if (by_key)
    for (long j = 0; j < c.keys; j++) w.bias[j] = bias[j * c.bias_key] * LOG2E;
  for (long block = 0; block < c.blocks; block++) {
    const long from = block * c.block, here = c.keys - from < c.block ? c.keys - from : c.block, units = (here + per - 1) / per;
    const uint32_t* k = c.packed_k + head * c.k_head + from * c.k_row;
    const uint32_t* v = c.packed_v + head * c.v_head + block * c.v_rows * (c.block / per);
    for (int i = 0; i < LANES; i += 16) _mm512_store_ps(w.top + i, none);
    if (!tiled) {
      product<HALF, true, N>(k, c.k_row, here, w.q, c.units, w.s, c.scale, by_key ? w.bias + from : nullptr, w.top);
    } else {
      product_of_tiles<false>(k, c.k_row, up(here, 16), w.q, c.k_row, w.s, N);
    }
    if (tiled) scaled<N>(w.s, here, c.scale, by_key ? w.bias + from : nullptr, w.top);
    if (by_place) added<N>(w.s, here, bias + from, c.bias_query, count, w.top);
    if (HALF && here % 2)
      for (int i = 0; i < LANES; i += 16) _mm512_store_ps(w.s + here * LANES + i, none);
    raise<N>(w.top, w.most, w.sum, w.o, c.width);
    exponentials<HALF, N>(w.s, units, w.most, w.sum);
    if (!tiled) {
      product<HALF, false, N>(v, c.block / per, c.width, (const uint32_t*)w.s, units, w.o, 0, nullptr, nullptr);
    } else {
      memset(w.s + units * LANES, 0, 4 * (up(units, 16) - units) * LANES);
      product_of_tiles<true>(v, c.block / per, c.v_rows, (const uint32_t*)w.s, up(units, 16), w.o, N);
    }
  }
  store_answer<HALF>(c, c.out.data + c.item * (b * c.out.b + n * c.out.n + begin * c.out.place), c.item * c.out.place, count, w.o, w.sum);
}

// ---- all tasks ----

template <bool HALF>
void work(Call& c) {
  const long all = c.batch * c.heads, packs = all * c.blocks;
  for (long task; (task = c.to_pack++) < packs; c.packed++) {
    const long head = task / c.blocks, block = task % c.blocks, b = head / c.heads, n = head % c.heads, from = block * c.block;
    pack_keys<HALF>(c, c.k.data + c.item * (b * c.k.b + n * c.k.n), c.item * c.k.place, c.packed_k + head * c.k_head, from, from + c.block);
    pack_values<HALF>(c, c.v.data + c.item * (b * c.v.b + n * c.v.n), c.item * c.v.place,
                      c.packed_v + head * c.v_head + block * c.v_rows * (c.block / (HALF ? 2 : 1)), from);
  }
  Space space(c);
  if (!space.memory) {
    c.failed = true;
    return;
  }
  const long groups = (c.queries + LANES - 1) / LANES;
  for (int turns = 0; c.packed < packs; turns++) turns < 1000 ? _mm_pause() : (void)sched_yield();  // what others have under way
  const bool near = 4 * c.heads * (c.k_head + c.v_head) <= NEAR;
  for (long task; (task = c.next++) < all * groups;) {
    // Long keys: head after head, whose keys stay close. Short ones: place after place, whose queries of all heads lie together.
    const long b = task / (c.heads * groups), i = task % (c.heads * groups);
    const long head = b * c.heads + (near ? i % c.heads : i / groups), begin = (near ? i / c.heads : i % groups) * LANES, left = c.queries - begin;
    if (left > 32) attend<HALF, 4>(c, space, head, begin);
    else if (left > 16) attend<HALF, 2>(c, space, head, begin);
    else attend<HALF, 1>(c, space, head, begin);
  }
}

void run(void* call) {
  Call& c = *(Call*)call;
  if (c.path == FLOAT) return work<false>(c);
  if (c.path == PAIRS) return work<true>(c);
  Configured tiles;
  work<true>(c);
}

}  // namespace

extern "C" {

// Which paths this machine has, and its system lets us go: a sum of Path.
int infuse_attention_paths() {
  unsigned a, b, c, d, more, unused, kept, found = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  __asm__("xgetbv" : "=a"(kept), "=d"(unused) : "c"(0));
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (kept & 0xe6) != 0xe6) return 0;  // the system keeps all of zmm and masks
  const unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;                 // AVX-512 F, DQ, BW, VL
  if ((b & wanted) != wanted) return 0;
  found = FLOAT;
  if (__get_cpuid_count(7, 1, &more, &unused, &unused, &unused) && (more >> 5 & 1)) {
    found |= PAIRS;
#ifdef TILES_IMITATED
    d = ~0u;
#endif
    if ((d >> 22 & 1) && (d >> 24 & 1) && tiles_allowed()) found |= TILES;
  }
  return found;
}

// numbers: batch, heads, queries, keys, width; strides of q, k, v, out (b, n, place each); of bias (b, n, query, key); threads; path.
// Everything in elements; a bias that differs by query has contiguous keys. 0, or -1 where there was no memory for it.
int infuse_attention(void* q, void* k, void* v, const float* bias, void* out, float scale, const int64_t* numbers) {
  const int64_t* s = numbers + 5;
  Call c;
  c.batch = numbers[0], c.heads = numbers[1], c.queries = numbers[2], c.keys = numbers[3], c.width = numbers[4];
  c.q = {(char*)q, s[0], s[1], s[2]}, c.k = {(char*)k, s[3], s[4], s[5]}, c.v = {(char*)v, s[6], s[7], s[8]};
  c.out = {(char*)out, s[9], s[10], s[11]};
  c.bias = bias, c.bias_b = s[12], c.bias_n = s[13], c.bias_query = s[14], c.bias_key = s[15];
  c.path = (int)s[17], c.scale = scale * LOG2E;
  const long per = c.path == FLOAT ? 1 : 2;
  c.item = 4 / per, c.units = c.width / per, c.k_row = c.path == TILES ? up(c.units, 16) : c.units;
  c.blocks = (c.keys + BLOCK - 1) / BLOCK, c.block = up((c.keys + c.blocks - 1) / c.blocks, 32), c.blocks = (c.keys + c.block - 1) / c.block;
  c.v_rows = up(c.width, 16), c.k_head = up(c.blocks * c.block * c.k_row, 16), c.v_head = c.blocks * c.v_rows * (c.block / per);
  const long all = c.batch * c.heads, groups = (c.queries + LANES - 1) / LANES;
  c.packed_k = (uint32_t*)aligned_alloc(64, 4 * all * (c.k_head + c.v_head));
  if (!c.packed_k) return -1;
  c.packed_v = c.packed_k + all * c.k_head, c.failed = false;
  c.to_pack = c.packed = c.next = 0;
  long threads = s[16], most = all * groups;
  const double multiplied = (2.0 * c.queries + 16.0) * all * c.keys * c.width;
  if (multiplied / ALONE < most) most = (long)(multiplied / ALONE) + 1;
  if (threads > most) threads = most;
  if (GOMP_parallel && threads > 1) GOMP_parallel(run, &c, (unsigned)threads, 0);
  else run(&c);
  free(c.packed_k);
  return c.failed ? -1 : 0;
}
}
