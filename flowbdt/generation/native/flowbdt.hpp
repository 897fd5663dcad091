// flowBDT: events from an exported model. C++17, no other library.
// MIT licence, see LICENSE of flowBDT.
//
//     auto model = std::make_shared<const flowbdt::Model>("model.bin");
//     flowbdt::Generator generator(model);                 // one for each thread
//     const auto& event = generator.one({energy}, seed, number);
//
// The model is the same for all threads and never changes. A generator has the working memory; it
// must not be used by two threads at a time. Event `number` of `seed` is the same whoever asks for
// it, in whatever order.
//
// The arrays of the file are described in flowbdt/generation/packed/arrays.py. flowBDT itself runs this
// code too, see core.cpp.

#ifndef FLOWBDT_HPP
#define FLOWBDT_HPP

#ifdef __FAST_MATH__
#error "flowbdt.hpp relies on NaN and on exact rounding: compile it without -ffast-math or -Ofast"
#endif

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#endif

namespace flowbdt {

/// What is thrown: a text that says what was expected, what came, and what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A model file is missing, damaged, foreign, or of another version.
class FileError : public Error {
 public:
  using Error::Error;
};

/// A wrong number of conditions, an infinite one, an unknown name.
class ArgumentError : public Error {
 public:
  using Error::Error;
};

/// An event came out infinite or not a number.
class EventError : public Error {
 public:
  using Error::Error;
};

namespace detail {

/// What plain C functions return, as flowbdt_status of flowbdt_c.h.
constexpr int kOk = 0, kBadFile = 1, kBadArgument = 2, kBadEvent = 3, kFailed = 4;

/// The text of the last failure in this thread.
inline std::string& last_error() {
  thread_local std::string text;
  return text;
}

inline int told(int status, const char* text) {
  try {
    last_error() = text;
  } catch (...) {
    last_error().clear();
  }
  return status;
}

/// Does some work, and returns what came of it: no exception leaves.
template <class Do>
int guarded(Do&& work) {
  try {
    work();
    return kOk;
  } catch (const FileError& error) {
    return told(kBadFile, error.what());
  } catch (const ArgumentError& error) {
    return told(kBadArgument, error.what());
  } catch (const EventError& error) {
    return told(kBadEvent, error.what());
  } catch (const std::exception& error) {
    return told(kFailed, error.what());
  } catch (...) {
    return told(kFailed, "an unknown exception");
  }
}

/// Memory that a call lends to the working memory of all that it makes and outlives: none asks the
/// system for its own.
class Lent {
 public:
  Lent(unsigned char* begin, std::size_t size) : begin_(begin), at_(begin), end_(begin + size) {
    before_ = now();
    now() = this;
  }
  ~Lent() { now() = before_; }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

  /// That of this thread, if there is some.
  static Lent*& now() {
    thread_local Lent* lent = nullptr;
    return lent;
  }

  /// Returns null where not so much is left.
  void* take(std::size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > static_cast<std::size_t>(end_ - at_)) return nullptr;
    at_ += bytes;
    return at_ - bytes;
  }
  bool has(const void* place) const { return place >= begin_ && place < end_; }

 private:
  unsigned char *begin_, *at_, *end_;
  Lent* before_;
};

template <class T>
struct Lender {
  using value_type = T;
  Lender() = default;
  template <class Other>
  Lender(const Lender<Other>&) {}
  T* allocate(std::size_t n) {
    Lent* lent = Lent::now();
    void* found = lent != nullptr ? lent->take(n * sizeof(T)) : nullptr;
    return static_cast<T*>(found != nullptr ? found : ::operator new(n * sizeof(T)));
  }
  void deallocate(T* place, std::size_t) {
    const Lent* lent = Lent::now();
    if (lent == nullptr || !lent->has(place)) ::operator delete(place);
  }
  template <class Other>
  bool operator==(const Lender<Other>&) const { return true; }
  template <class Other>
  bool operator!=(const Lender<Other>&) const { return false; }
};

/// Working memory.
template <class T>
using Work = std::vector<T, Lender<T>>;

/// The second of a model with columns that classifiers draw, the third of one whose events turn or
/// must meet cuts, which readers of before would misread.
constexpr std::uint32_t kVersion = 3, kDrawnVersion = 4, kTurnedVersion = 5;
constexpr std::uint32_t kOrder = 0x01020304;
constexpr std::size_t kHead = 64, kEntry = 64, kNameLength = 40;

/// Events that go through all steps together: the trees of a step are read once for all of them.
constexpr std::size_t kBlock = 512;

/// Events whose closed form is worked out together.
constexpr std::size_t kRows = 64;

/// Rows whose inner variables are in the cache together.
constexpr std::size_t kTogether = 4;

/// With fewer rows trees are evaluated one row after the other.
constexpr std::size_t kFewest = 6;

/// Trees that are walked side by side: none waits for the memory of another.
constexpr std::size_t kGroup = 8;

/// Patterns of known conditions whose matrices are kept.
constexpr std::size_t kMostPatterns = 64;

// ---------------------------------------------------------------------------------------------
// Random numbers

struct Words {
  std::uint64_t w[4];
};

inline void multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& high, std::uint64_t& low) {
  const std::uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
  const std::uint64_t mid = a1 * b0 + ((a0 * b0) >> 32);
  const std::uint64_t rest = a0 * b1 + (mid & 0xFFFFFFFFu);
  high = a1 * b1 + (mid >> 32) + (rest >> 32);
  low = a * b;
}

/// Philox 4x64 with ten rounds: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011. Numbers that depend on a counter and a key only.
inline Words philox(Words c, std::uint64_t key0, std::uint64_t key1) {
  for (int round = 0; round < 10; ++round) {
    std::uint64_t high0, low0, high1, low1;
    multiply(0xD2E7470EE14C6C93u, c.w[0], high0, low0);
    multiply(0xCA5A826395121157u, c.w[2], high1, low1);
    c = Words{{high1 ^ c.w[1] ^ key0, low1, high0 ^ c.w[3] ^ key1, low0}};
    key0 += 0x9E3779B97F4A7C15u;
    key1 += 0xBB67AE8584CAA73Bu;
  }
  return c;
}

constexpr std::uint64_t kTag = 0x666C6F77424454u;  // "flowBDT"
constexpr std::uint64_t kNoise = 0, kAccept = 1;

/// A number in [0, 1); never 0 if `open`.
inline double unit(std::uint64_t word, bool open) {
  return (static_cast<double>(word >> 11) + (open ? 0.5 : 0.0)) * (1.0 / 9007199254740992.0);
}

/// Fills `out` with standard normal numbers, by the formula of Box and Muller.
inline void normal(std::uint64_t seed, std::uint64_t event, std::uint64_t attempt, double* out,
                   std::size_t size) {
  const double two_pi = 6.283185307179586476925;
  for (std::size_t i = 0; i < size; i += 4) {
    const Words words = philox(Words{{i / 4, attempt, event, kNoise}}, seed, kTag);
    for (std::size_t q = 0; q < 4 && i + q < size; q += 2) {
      const double radius = std::sqrt(-2.0 * std::log(unit(words.w[q], true)));
      const double angle = two_pi * unit(words.w[q + 1], false);
      out[i + q] = radius * std::cos(angle);
      if (i + q + 1 < size) out[i + q + 1] = radius * std::sin(angle);
    }
  }
}

inline double uniform(std::uint64_t seed, std::uint64_t event, std::uint64_t attempt) {
  return unit(philox(Words{{0, attempt, event, kAccept}}, seed, kTag).w[0], false);
}

// ---------------------------------------------------------------------------------------------
// The file

/// Elements of an array that belongs to somebody else.
template <class T>
struct Span {
  const T* data = nullptr;
  std::size_t size = 0;
  const T& operator[](std::size_t i) const { return data[i]; }
};

template <class T>
constexpr std::uint32_t kind_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return 0;
  if constexpr (std::is_same_v<T, std::uint16_t>) return 1;
  if constexpr (std::is_same_v<T, std::int64_t>) return 2;
  if constexpr (std::is_same_v<T, float>) return 3;
  return 4;
}

/// CRC-32 of ISO 3309, eight bytes at a time.
inline std::uint32_t crc32(const unsigned char* data, std::size_t size) {
  static const auto tables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1u) ? 0xEDB88320u : 0u);
      t[0][i] = c;
    }
    for (std::size_t k = 1; k < 8; ++k)
      for (std::size_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 255u];
    return t;
  }();
  std::uint32_t c = 0xFFFFFFFFu;
  std::size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    const unsigned char* p = data + i;
    c = tables[7][(c ^ p[0]) & 255u] ^ tables[6][((c >> 8) ^ p[1]) & 255u] ^
        tables[5][((c >> 16) ^ p[2]) & 255u] ^ tables[4][((c >> 24) ^ p[3]) & 255u] ^
        tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
  }
  for (; i < size; ++i) c = (c >> 8) ^ tables[0][(c ^ data[i]) & 255u];
  return c ^ 0xFFFFFFFFu;
}

/// A model file in memory, checked as a whole.
class File {
 public:
  explicit File(const std::string& path)
      : path_(path),
        advice_("export it again with 'flowbdt export MODEL -o FOLDER --format cpp', or copy it"
                " again") {
    read();
    open();
  }

  /// The bytes of a file that are in memory already, and stay there if they begin at a multiple of
  /// 64; others are copied.
  File(const void* bytes, std::size_t size, const std::string& name, const std::string& advice)
      : path_(name), advice_(advice), size_(size) {
    if (size_ < kHead) fail("it has only " + std::to_string(size_) + " bytes");
    bytes_ = static_cast<const unsigned char*>(bytes);
    if (reinterpret_cast<std::uintptr_t>(bytes) % 64 != 0) {
      make_room();
      std::memcpy(owned_.get(), bytes, size_);
    }
    open();
  }

  bool has(const std::string& name) const { return entries_.count(name) > 0; }

  /// Returns an array; `size` is how many elements it must have, if that is known.
  template <class T>
  Span<T> get(const std::string& name, std::size_t size = kAny) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) fail("it has no array '" + name + "'");
    const Entry& entry = found->second;
    if (entry.kind != kind_of<T>()) fail("array '" + name + "' is of another type");
    if (entry.begin % 64 != 0 || entry.begin > size_ ||
        entry.size > (size_ - entry.begin) / sizeof(T))
      fail("array '" + name + "' does not lie within it");
    if (size != kAny && entry.size != size)
      fail("array '" + name + "' has " + std::to_string(entry.size) + " elements instead of " +
           std::to_string(size));
    return {reinterpret_cast<const T*>(bytes_ + entry.begin),
            static_cast<std::size_t>(entry.size)};
  }

  /// Returns the texts of an array, each ended by a zero byte.
  std::vector<std::string> texts(const std::string& name, std::size_t size = kAny) const {
    const Span<std::uint8_t> bytes = get<std::uint8_t>(name);
    std::vector<std::string> found;
    std::string text;
    for (std::size_t i = 0; i < bytes.size; ++i) {
      if (bytes[i] != 0) {
        text.push_back(static_cast<char>(bytes[i]));
      } else {
        found.push_back(text);
        text.clear();
      }
    }
    if (size != kAny && found.size() != size) fail("'" + name + "' has not one text per column");
    return found;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw FileError(path_ + " is not a usable flowBDT model: " + what + "; " + advice_);
  }

  void require(bool holds, const char* what) const {
    if (!holds) fail("its " + std::string(what) + " do not fit together");
  }

  /// Returns the sizes of a part, of which there are `count`. None is above 2^20, so that products
  /// of three fit into 64 bits.
  std::vector<std::size_t> sizes(const std::string& name, std::size_t count) const {
    const Span<std::int64_t> stored = get<std::int64_t>(name + ".sizes", count);
    std::vector<std::size_t> result;
    for (std::size_t i = 0; i < count; ++i) {
      require(stored[i] >= 0 && stored[i] <= (1 << 20), "sizes");
      result.push_back(static_cast<std::size_t>(stored[i]));
    }
    return result;
  }

 private:
  static constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();

  struct Entry {
    std::uint32_t kind;
    std::uint64_t begin, size;
  };

  struct Free {
    void operator()(unsigned char* bytes) const {
      ::operator delete(bytes, std::align_val_t(64));
    }
  };

  template <class T>
  T number(std::size_t at) const {
    T value;
    std::memcpy(&value, bytes_ + at, sizeof value);
    return value;
  }

  void read() {
    std::ifstream stream(path_, std::ios::binary | std::ios::ate);
    const std::streamoff end = stream ? static_cast<std::streamoff>(stream.tellg()) : -1;
    if (end < 0) throw FileError("cannot open the model file " + path_ + ": check the path");
    stream.seekg(0);
    if (end > 0 && stream.peek() == std::ifstream::traits_type::eof())
      fail("it cannot be read (a folder?)");
    size_ = static_cast<std::size_t>(end);
    if (size_ < kHead) fail("it has only " + std::to_string(size_) + " bytes");
    make_room();
    stream.read(reinterpret_cast<char*>(owned_.get()), static_cast<std::streamsize>(size_));
    if (!stream) fail("it could not be read to its end");
  }

  void make_room() {
    owned_.reset(static_cast<unsigned char*>(::operator new(size_, std::align_val_t(64))));
    bytes_ = owned_.get();
  }

  void open() {
    check_head();
    const std::uint32_t count = number<std::uint32_t>(28);
    for (std::size_t i = 0; i < count; ++i) add_entry(kHead + i * kEntry);
  }

  void check_head() const {
    if (std::memcmp(bytes_, "FLOWBDT", 8) != 0) fail("it does not begin with FLOWBDT");
    if (number<std::uint32_t>(12) != kOrder)
      fail("its numbers have another byte order than this machine");
    const std::uint32_t version = number<std::uint32_t>(8);
    if (version < kVersion || version > kTurnedVersion)
      fail("it has format version " + std::to_string(version) +
           ", this flowbdt.hpp reads versions " + std::to_string(kVersion) + " to " +
           std::to_string(kTurnedVersion) +
           " (use the header that was written beside the file)");
    const std::uint64_t stated = number<std::uint64_t>(16);
    if (stated != size_)
      fail("it has " + std::to_string(size_) + " bytes, its head says " + std::to_string(stated) +
           " (truncated?)");
    if (crc32(bytes_ + kHead, size_ - kHead) != number<std::uint32_t>(24))
      fail("its checksum is wrong (damaged)");
    if (number<std::uint32_t>(28) > (size_ - kHead) / kEntry) fail("its table is too long");
  }

  void add_entry(std::size_t at) {
    const char* name = reinterpret_cast<const char*>(bytes_ + at);
    const std::size_t length =
        static_cast<std::size_t>(std::find(name, name + kNameLength, '\0') - name);
    entries_[std::string(name, length)] =
        Entry{number<std::uint32_t>(at + 40), number<std::uint64_t>(at + 48),
              number<std::uint64_t>(at + 56)};
  }

  std::string path_, advice_;
  std::size_t size_ = 0;
  const unsigned char* bytes_ = nullptr;
  std::unique_ptr<unsigned char, Free> owned_;
  std::map<std::string, Entry> entries_;
};

// ---------------------------------------------------------------------------------------------
// Trees

#if defined(__GNUC__) && defined(__x86_64__)
#define FLOWBDT_AVX2 __attribute__((target("avx2,bmi2")))
#endif

/// Trees of one depth that add to the same outputs, each filled up to a complete one.
struct Forest {
  std::size_t n_trees, depth, width, first, nodes, leaves, base;
  std::size_t padded;  // how many numbers a leaf takes
};

inline std::size_t filled(std::size_t width) {
  if (width == 1) return 1;
  const std::size_t by_four = (width + 3) / 4 * 4;
  return by_four % 16 == 12 ? by_four + 4 : by_four;
}

/// The thresholds at which some trees cut their inputs, numbered from 1 in rising order. A value
/// has the number of the last one that is not above it, so it goes to the second child where that
/// is at least the number of the threshold. NaN has number 255 where nodes send it there, else 0;
/// an input of which there are nodes of both kinds is there twice.
struct Cuts {
  static constexpr std::size_t kMost = 254, kNowhere = 65535;

  struct alignas(64) Sixteen {
    float at[16];
    std::size_t below(float value) const {
#ifdef FLOWBDT_AVX2
      const __m128 all = _mm_set1_ps(value);
      const auto is = [&](std::size_t i) {
        return _mm_castps_si128(_mm_cmple_ps(_mm_load_ps(at + i), all));
      };
      const __m128i eight = _mm_packs_epi32(is(0), is(4)), rest = _mm_packs_epi32(is(8), is(12));
      const unsigned bits = static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(eight, rest)));
      return static_cast<std::size_t>(__builtin_ctz(~bits));  // they are in rising order
#else
      std::size_t count = 0;
      for (std::size_t i = 0; i < 16; ++i) count += at[i] <= value ? 1 : 0;
      return count;
#endif
    }
  };

  std::vector<std::uint16_t> input, place;  // place: of each input whose NaN is 0, or 255
  std::vector<std::uint8_t> missing;
  std::vector<std::vector<float>> sorted;
  std::vector<Sixteen> cuts;  // of each input the last of each sixteen, then all, filled up
  std::vector<std::size_t> first;

  std::uint8_t number(std::size_t f, float value) const {
    if (value != value) return missing[f] != 0 ? 255 : 0;
    const Sixteen* own = cuts.data() + first[f];
    const std::size_t many = own->below(value);
    return static_cast<std::uint8_t>(16 * many + own[1 + many].below(value));
  }

  /// Puts `sorted` where numbers are looked up.
  void close() {
    Sixteen none;
    std::fill_n(none.at, 16, std::numeric_limits<float>::quiet_NaN());
    for (const std::vector<float>& all : sorted) {
      const std::size_t at = cuts.size();
      first.push_back(at);
      cuts.resize(at + 2 + all.size() / 16, none);
      for (std::size_t i = 0; i < all.size(); ++i) {
        cuts[at + 1 + i / 16].at[i % 16] = all[i];
        if (i % 16 == 15) cuts[at].at[i / 16] = all[i];
      }
    }
  }
};

/// Trees of a forest one after the other whose thresholds are in the same table, and its inputs
/// that they look at; without a table thresholds are as they are.
struct TreeRun {
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
  std::size_t forest, begin, end, table, nodes, tops;
  std::vector<std::uint16_t> used;
};

/// Numbers of the inputs of a row, of those that some runs use.
struct TreeRow {
  std::size_t table = TreeRun::kNone;
  Work<float> seen;
  Work<std::uint8_t> numbers;
};

/// Something that sums up trees faster than `Trees` itself, with the same bits.
class TreeSums {
 public:
  virtual ~TreeSums() = default;
  virtual void sum(std::size_t begin, std::size_t end, const float* x, std::size_t n,
                   float* total) const = 0;
};

class Trees {
 public:
  Trees() = default;

  Trees(const File& file, const std::string& name) {
    const auto sizes = file.sizes(name, 2);
    n_inputs_ = sizes[0];
    const auto table = file.get<std::int64_t>(name + ".table");
    const auto feature = feature_ = file.get<std::uint16_t>(name + ".feature");
    threshold_ = file.get<float>(name + ".threshold", feature.size);
    missing_ = file.get<std::uint8_t>(name + ".missing", feature.size);
    leaves_ = file.get<float>(name + ".leaves");
    base_ = file.get<float>(name + ".base");
    file.require(table.size % 7 == 0, "forests");
    for (std::size_t i = 0; i < table.size; i += 7) {
      for (std::size_t q = 0; q < 7; ++q)
        file.require(table[i + q] >= 0 && table[i + q] < (std::int64_t{1} << 40), "forests");
      const auto value = [&](std::size_t q) { return static_cast<std::size_t>(table[i + q]); };
      const Forest forest{value(0), value(1), value(2), value(3), value(4),
                          value(5), value(6), filled(value(2))};
      file.require(forest.depth < 32 && forest.width > 0 &&
                       forest.n_trees <= feature.size >> forest.depth &&
                       forest.width <= base_.size && forest.first <= base_.size,
                   "forests");
      const std::size_t places = forest.n_trees << forest.depth;
      file.require(forest.nodes + places <= feature.size &&
                       forest.leaves + places * forest.padded <= leaves_.size &&
                       forest.base + forest.width <= base_.size,
                   "forests");
      n_outputs_ = std::max(n_outputs_, forest.first + forest.width);
      across_ = std::max(across_, forest.first + forest.padded);
      forests_.push_back(forest);
    }
    for (std::size_t i = 0; i < feature.size; ++i)
      file.require(feature[i] < n_inputs_, "nodes of trees");
    file.require(n_outputs_ == sizes[1], "outputs of trees");
    number();
  }

  std::size_t n_forests() const { return forests_.size(); }
  std::size_t n_inputs() const { return n_inputs_; }
  std::size_t n_outputs() const { return n_outputs_; }

  /// Numbers from one row of sums to the next: leaves are filled up with zeros.
  std::size_t across() const { return across_; }

  const std::vector<Forest>& forests() const { return forests_; }
  const std::vector<TreeRun>& runs() const { return runs_; }
  /// The first run of each forest, and their end.
  const std::vector<std::size_t>& first_run() const { return first_run_; }
  const std::vector<Cuts>& tables() const { return tables_; }
  /// Inputs, as their table numbers them, and thresholds of the nodes of runs that have a table.
  const std::vector<std::uint16_t>& looked_at() const { return looked_at_; }
  const std::uint8_t* cut() const { return cut_.empty() ? nullptr : cut_[0].at; }
  const Span<std::uint16_t>& feature() const { return feature_; }
  const Span<float>& threshold() const { return threshold_; }
  const Span<std::uint8_t>& missing() const { return missing_; }
  const Span<float>& leaves() const { return leaves_; }
  const Span<float>& base() const { return base_; }

  /// Sums up several rows, if there is something.
  std::shared_ptr<const TreeSums> faster;

  /// Sets `total` (n, across) to what the forests `begin` to `end` say of the inputs (n, stride).
  /// `row` is what was found of one before, by these trees: some inputs may be the same.
  void sum(std::size_t begin, std::size_t end, const float* x, std::size_t n, std::size_t stride,
           float* total, TreeRow& row) const {
    if (faster != nullptr && n >= kFewest && stride == n_inputs_)
      return faster->sum(begin, end, x, n, total);
    std::fill(total, total + n * across_, 0.0f);
    for (std::size_t r = 0; r < n; ++r, x += stride, total += across_) {
      for (std::size_t f = begin; f < end; ++f)
        std::copy_n(base_.data + forests_[f].base, forests_[f].width, total + forests_[f].first);
      for (std::size_t i = first_run_[begin]; i < first_run_[end]; ++i) add(i, x, total, row);
    }
  }

  void sum(std::size_t begin, std::size_t end, const float* x, std::size_t n, std::size_t stride,
           float* total) const {
    TreeRow row;
    sum(begin, end, x, n, stride, total, row);
  }

  /// Adds a run of trees to the sums (across) of one row.
  void add(std::size_t i, const float* x, float* total, TreeRow& row) const {
    const TreeRun& run = runs_[i];
    float* sums = total + forests_[run.forest].first;
    if (run.table == TreeRun::kNone) return add_by_node(run, sums, [&](std::size_t node) {
      const std::size_t at = forests_[run.forest].nodes + node;
      const float value = x[feature_[at]];
      return (value >= threshold_[at]) | ((value != value) & (missing_[at] != 0));
    });
    const Cuts& cuts = tables_[run.table];
    if (row.table != run.table) {
      row.table = run.table;
      row.seen.assign(cuts.input.size(), std::numeric_limits<float>::quiet_NaN());
      row.numbers.resize(std::max(cuts.input.size(), kInVectors));
    }
    for (const std::uint16_t f : run.used) {
      const float value = x[cuts.input[f]];
      if (value == row.seen[f]) continue;
      row.seen[f] = value;
      row.numbers[f] = cuts.number(f, value);
    }
#ifdef FLOWBDT_AVX2
    static const bool has_vectors =
        __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("bmi2") != 0;
    if (has_vectors && cuts.input.size() <= kInVectors) {
      switch (forests_[run.forest].depth) {
        case 3: return add_in_vectors<3>(run, row, sums);
        case 4: return add_in_vectors<4>(run, row, sums);
        case 5: return add_in_vectors<5>(run, row, sums);
        case 6: return add_in_vectors<6>(run, row, sums);
        case 7: return add_in_vectors<7>(run, row, sums);
        default: break;
      }
    }
#endif
    const std::uint16_t* looked_at = looked_at_.data() + run.nodes;
    const std::uint8_t *cut = cut_[0].at + run.nodes, *numbers = row.numbers.data();
    const std::size_t first = run.begin << forests_[run.forest].depth;
    add_by_node(run, sums, [&](std::size_t node) {
      return numbers[looked_at[node - first]] >= cut[node - first];
    });
  }

 private:
  static constexpr std::size_t kInVectors = 128;

  /// Trees for each input of a table from which on they are numbered.
  static constexpr std::size_t kPerInput = 1;

  struct alignas(32) Bytes {
    std::uint8_t at[32];
  };

  /// Finds tables of thresholds, each for as many trees as it has room for.
  void number() {
    bool open = false;
    for (std::size_t f = 0; f < forests_.size(); ++f) {
      first_run_.push_back(runs_.size());
      const Forest& forest = forests_[f];
      for (std::size_t t = 0; t < forest.n_trees; ++t) {
        const std::size_t nodes = forest.nodes + (t << forest.depth);
        const bool fits = open && add_cuts(nodes, forest.depth);
        if (!fits) {  // a new table, unless this tree is too much for that too
          tables_.emplace_back();
          tables_.back().place.assign(2 * n_inputs_, Cuts::kNowhere);
          open = add_cuts(nodes, forest.depth);
          if (!open) tables_.pop_back();
        }
        const std::size_t table = open ? tables_.size() - 1 : TreeRun::kNone;
        if (runs_.size() == first_run_[f] || runs_.back().table != table)
          runs_.push_back(TreeRun{f, t, t, table, 0, 0, {}});
        runs_.back().end = t + 1;
      }
    }
    first_run_.push_back(runs_.size());
    std::vector<std::size_t> trees(tables_.size());
    for (const TreeRun& run : runs_)
      if (run.table != TreeRun::kNone) trees[run.table] += run.end - run.begin;
    for (Cuts& table : tables_) table.close();
    for (TreeRun& run : runs_) {  // of few trees it takes longer to number the inputs
      if (run.table == TreeRun::kNone) continue;
      if (trees[run.table] < kPerInput * tables_[run.table].input.size()) run.table = TreeRun::kNone;
      else number(run);
    }
  }

  /// Whether a node decides anything: those below a leaf do not.
  bool decides(std::size_t node) const {
    return threshold_[node] < std::numeric_limits<float>::infinity();
  }

  std::uint16_t& place_of(Cuts& table, std::size_t node) const {
    return table.place[2u * feature_[node] + (missing_[node] != 0 ? 1u : 0u)];
  }

  /// Enters the thresholds of a tree into the last table; returns whether there was room.
  bool add_cuts(std::size_t nodes, std::size_t depth) {
    Cuts& table = tables_.back();
    for (std::size_t i = nodes + 1; i < nodes + (std::size_t{1} << depth); ++i) {
      if (!decides(i)) continue;
      std::uint16_t& at = place_of(table, i);
      if (at == Cuts::kNowhere) {
        if (table.input.size() == Cuts::kNowhere) return false;
        at = static_cast<std::uint16_t>(table.input.size());
        table.input.push_back(feature_[i]);
        table.missing.push_back(missing_[i] != 0);
        table.sorted.emplace_back();
      }
      std::vector<float>& cuts = table.sorted[at];
      const auto found = std::lower_bound(cuts.begin(), cuts.end(), threshold_[i]);
      if (found != cuts.end() && *found == threshold_[i]) continue;
      if (cuts.size() == Cuts::kMost) return false;
      cuts.insert(found, threshold_[i]);
    }
    return true;
  }

  /// Writes the nodes of a run as numbers; number 255 is never reached.
  void number(TreeRun& run) {
    const Forest& forest = forests_[run.forest];
    Cuts& table = tables_[run.table];
    std::vector<bool> used(table.input.size());
    const std::size_t size = (run.end - run.begin) << forest.depth;
    run.nodes = looked_at_.size();
    looked_at_.resize(run.nodes + (size + 31) / 32 * 32);
    cut_.resize(looked_at_.size() / 32), byte_.resize(cut_.size());
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t node = forest.nodes + (run.begin << forest.depth) + i;
      std::uint8_t& cut = cut_[(run.nodes + i) / 32].at[i % 32];
      cut = 255;
      if (i % (std::size_t{1} << forest.depth) == 0 || !decides(node)) continue;
      const std::uint16_t f = place_of(table, node);
      const auto& cuts = table.sorted[f];
      cut = static_cast<std::uint8_t>(
          1 + (std::lower_bound(cuts.begin(), cuts.end(), threshold_[node]) - cuts.begin()));
      used[f] = true;
      looked_at_[run.nodes + i] = f;
      byte_[(run.nodes + i) / 32].at[i % 32] = static_cast<std::uint8_t>(f);
    }
    run.tops = top_byte_.size();
    const std::size_t n_trees = run.end - run.begin;
    top_byte_.resize(run.tops + (n_trees + 3) / 4), top_cut_.resize(top_byte_.size());
    for (std::size_t t = 0; t < n_trees && forest.depth >= 3; ++t)
      for (std::size_t i = 0; i < 8; ++i) {
        const std::size_t from = run.nodes + (t << forest.depth) + i, to = run.tops + t / 4;
        top_byte_[to].at[8 * (t % 4) + i] = byte_[from / 32].at[from % 32];
        top_cut_[to].at[8 * (t % 4) + i] = cut_[from / 32].at[from % 32];
      }
    for (std::size_t f = 0; f < used.size(); ++f)
      if (used[f]) run.used.push_back(static_cast<std::uint16_t>(f));
  }

  /// Walks trees side by side, none waits for the memory of another: `beyond` tells of a node
  /// whether the row goes to its second child.
  template <class Beyond>
  void add_by_node(const TreeRun& run, float* sums, Beyond&& beyond) const {
    const Forest& forest = forests_[run.forest];
    for (std::size_t t = run.begin; t < run.end; t += kGroup) {
      std::size_t k[kGroup] = {};
      const std::size_t count = std::min(kGroup, run.end - t);
      for (std::size_t d = 0; d < forest.depth; ++d)
        for (std::size_t q = 0; q < count; ++q)
          k[q] |= static_cast<std::size_t>(
                      beyond(((t + q) << forest.depth) + (std::size_t{1} << d) + k[q]))
                  << d;
      add_leaves(forest, t, count, k, sums);
    }
  }

  /// Adds leaf by leaf, in the order of the trees: sums have the bits that XGBoost gives them.
  void add_leaves(const Forest& forest, std::size_t t, std::size_t count, const std::size_t* k,
                  float* sums) const {
    const float* leaves = leaves_.data + forest.leaves;
    const std::size_t width = forest.padded;
    const auto leaf = [&](std::size_t q) {
      return leaves + (((t + q) << forest.depth) + k[q]) * width;
    };
    if (width == 1) {
      const float* from = leaves + (t << forest.depth);
      float own = *sums;
      for (std::size_t q = 0; q < count; ++q) own += from[(q << forest.depth) + k[q]];
      *sums = own;
    } else if (count == kGroup && width % 16 == 0) {
      add_wide<16>(leaf, width, sums);
    } else if (count == kGroup) {
      add_wide<4>(leaf, width, sums);
    } else {
      for (std::size_t q = 0; q < count; ++q)
        for (std::size_t o = 0; o < width; ++o) sums[o] += leaf(q)[o];
    }
  }

  template <std::size_t W, class Leaf>
  static void add_wide(Leaf&& leaf, std::size_t width, float* sums) {
    for (std::size_t o = 0; o < width; o += W) {
      float own[W];
      for (std::size_t i = 0; i < W; ++i) own[i] = sums[o + i];
      for (std::size_t q = 0; q < kGroup; ++q)
        for (std::size_t i = 0; i < W; ++i) own[i] += leaf(q)[o + i];
      for (std::size_t i = 0; i < W; ++i) sums[o + i] = own[i];
    }
  }

#ifdef FLOWBDT_AVX2
  /// Whether the row goes to the second child of each of 32 nodes, of T times 16 inputs.
  template <std::size_t T>
  FLOWBDT_AVX2 static std::uint32_t beyond(const __m256i* numbers, const Bytes& byte,
                                           const Bytes& cut) {
    const __m256i f = _mm256_load_si256(reinterpret_cast<const __m256i*>(byte.at));
    const __m256i c = _mm256_load_si256(reinterpret_cast<const __m256i*>(cut.at));
    __m256i x[T];
    for (std::size_t i = 0; i < T; ++i) x[i] = _mm256_shuffle_epi8(numbers[i], f);
    int shift = 3;  // the highest bit of a byte chooses
    for (std::size_t left = T / 2; left > 0; left /= 2, --shift)
      for (std::size_t i = 0; i < left; ++i)
        x[i] = _mm256_blendv_epi8(x[2 * i], x[2 * i + 1], _mm256_slli_epi16(f, shift));
    return static_cast<std::uint32_t>(
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(x[0], c), x[0])));
  }

  /// What the first three decisions of a tree are, from those of its nodes 1 to 7.
  static constexpr std::array<std::uint8_t, 256> first_three() {
    std::array<std::uint8_t, 256> all{};
    for (unsigned m = 0; m < 256; ++m) {
      unsigned k = (m >> 1) & 1u;
      k |= ((m >> (2 + k)) & 1u) << 1;
      all[m] = static_cast<std::uint8_t>(k | ((m >> (4 + k)) & 1u) << 2);
    }
    return all;
  }

  template <std::size_t D>
  void add_in_vectors(const TreeRun& run, const TreeRow& row, float* sums) const {
    const std::size_t size = tables_[run.table].input.size();
    if (size <= 32) add_in_vectors<D, 2>(run, row, sums);
    else if (size <= 64) add_in_vectors<D, 4>(run, row, sums);
    else add_in_vectors<D, 8>(run, row, sums);
  }

  /// Adds trees of depth D, of four of which the first three decisions are made at once.
  template <std::size_t D, std::size_t T>
  FLOWBDT_AVX2 void add_in_vectors(const TreeRun& run, const TreeRow& row, float* sums) const {
    static constexpr std::array<std::uint8_t, 256> kThree = first_three();
    __m256i numbers[T];
    for (std::size_t i = 0; i < T; ++i)
      numbers[i] = _mm256_broadcastsi128_si256(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(row.numbers.data() + 16 * i)));
    const std::uint8_t *byte = byte_[0].at + run.nodes, *cut = cut_[0].at + run.nodes;
    const Bytes *top_byte = top_byte_.data() + run.tops, *top_cut = top_cut_.data() + run.tops;
    const std::uint8_t* number = row.numbers.data();
    const auto choose = [&](std::size_t count, std::size_t* k) FLOWBDT_AVX2 {
      for (std::size_t q = 0; q < count; q += 4) {
        const std::uint32_t bits = beyond<T>(numbers, *top_byte++, *top_cut++);
        for (std::size_t i = 0; i < 4; ++i) k[q + i] = kThree[(bits >> (8 * i)) & 255];
      }
      for (std::size_t d = 3; d < D; ++d)
        for (std::size_t q = 0; q < count; ++q) {
          const std::size_t node = (q << D) + (std::size_t{1} << d) + k[q];
          k[q] |= static_cast<std::size_t>(number[byte[node]] >= cut[node]) << d;
        }
      byte += count << D, cut += count << D;
    };
    const Forest& forest = forests_[run.forest];
    std::size_t t = run.begin;
    if (forest.padded == 1) {  // leaves at once, without a place for their numbers
      const float* leaves = leaves_.data + forest.leaves;
      float own = *sums;
      for (; t + kGroup <= run.end; t += kGroup) {
        std::size_t k[kGroup];
        choose(kGroup, k);
        for (std::size_t q = 0; q < kGroup; ++q) own += leaves[((t + q) << D) + k[q]];
      }
      *sums = own;
    }
    for (; t < run.end; t += kGroup) {
      std::size_t k[kGroup];
      const std::size_t count = std::min(kGroup, run.end - t);
      choose(count, k);
      add_leaves(forest, t, count, k, sums);
    }
  }
#endif

  std::vector<Forest> forests_;
  std::vector<TreeRun> runs_;
  std::vector<std::size_t> first_run_;
  std::vector<Cuts> tables_;
  std::vector<std::uint16_t> looked_at_;
  std::vector<Bytes> byte_, cut_;  // the same inputs, if there are few, and thresholds
  std::vector<Bytes> top_byte_, top_cut_;  // of the first eight nodes of each tree
  Span<std::uint16_t> feature_;
  Span<std::uint8_t> missing_;
  Span<float> threshold_, leaves_, base_;
  std::size_t n_inputs_ = 0, n_outputs_ = 0, across_ = 0;
};

// ---------------------------------------------------------------------------------------------
// Closed form

enum Kind : std::int64_t { kNone = 0, kFull = 1, kLowRank = 2 };
enum Where { kCentre, kStack, kConstant, kQuadratic, kLinear, kBase, kGain, kRatio, kParts };

/// The closed form at every step for one pattern of known conditions; see `arrays.FormArrays`.
struct Form {
  Kind kind = kNone;
  std::size_t n_points = 0, n_seen = 0, n_inner = 0, n_components = 0, n_out = 0, n_used = 0;
  std::vector<std::size_t> observed;
  Span<double> turn;
  Span<std::int64_t> where;
  Span<double> numbers;
  std::vector<std::int64_t> own_where;
  std::vector<double> own_numbers;
  std::vector<double> linear;  // of one full component: see `make_linear`
  std::shared_ptr<const void> in_lanes;  // the same in another order, for whoever put it there

  Form() = default;

  Form(const File& file, std::size_t m, std::size_t n_cond, std::size_t n_steps) {
    const auto sizes = file.sizes("form", 7);
    kind = static_cast<Kind>(sizes[0]);
    file.require(kind <= kLowRank, "closed forms");
    if (kind == kNone) return;
    n_points = sizes[1];
    n_seen = sizes[2];
    n_inner = sizes[3];
    n_components = sizes[4];
    n_out = sizes[5];
    n_used = sizes[6];
    const auto known = file.get<std::int64_t>("form.observed");
    for (std::size_t j = 0; j < known.size; ++j) {
      file.require(known[j] >= 0 && static_cast<std::uint64_t>(known[j]) < n_cond, "closed forms");
      observed.push_back(static_cast<std::size_t>(known[j]));
    }
    turn = file.get<double>("form.turn", 4 * n_steps);
    where = file.get<std::int64_t>("form.where", kParts * n_steps);
    numbers = file.get<double>("form.numbers");
    file.require(n_points == m && n_seen == m + observed.size() && n_components > 0 &&
                     n_inner > 0 && (n_used == m || n_used == 2 * m) && n_used <= n_out &&
                     n_out <= numbers.size + 8 && (kind == kLowRank || n_inner == n_seen),
                 "closed forms");
    for (std::size_t s = 0; s < n_steps; ++s) check(file, s);
    make_linear();
  }

  /// Every part that is read at a step must lie within the numbers.
  void check(const File& file, std::size_t s) const {
    const std::size_t n = n_seen, k = n_components, i = n_inner;
    const std::size_t out = by_score(s) ? 0 : n_out, low = kind == kLowRank;
    const std::size_t stack = i * k + (low ? n * i * k : k * n * (n + 1) / 2);
    const std::size_t sizes[kParts] = {n,       stack,       k,            low * n * k, low * n * k,
                                       k * out, k * i * out, low * k * out};
    for (std::size_t q = 0; q < kParts; ++q) {
      const std::int64_t at = where[s * kParts + q];
      if (sizes[q] == 0 || (q == kGain && at == -1)) continue;
      file.require(at >= 0 && static_cast<std::uint64_t>(at) + sizes[q] <= numbers.size,
                   "closed forms");
    }
  }

  const double* part(std::size_t step, Where what) const {
    return numbers.data + where[step * kParts + static_cast<std::size_t>(what)];
  }
  bool has_gain(std::size_t step) const { return where[step * kParts + kGain] >= 0; }

  /// How many inner variables, over all components, do not depend on input j.
  std::size_t skipped(std::size_t j) const { return kind == kFull ? j * n_components : 0; }

  /// Of a single Gaussian what comes out is linear in what is seen: for each step and output
  /// `linear` has the base, then what each of the n_seen adds. Of a low rank there is none.
  void make_linear() {
    if (kind != kFull || n_components != 1) return;
    for (std::size_t s = 0; s < turn.size / 4; ++s)
      for (std::size_t o = 0; o < n_used; ++o) {
        const double scale = by_score(s) ? turn[4 * s + 2] : 1.0, variance = turn[4 * s + 3];
        std::vector<double> row(1 + n_seen);
        row[0] = by_score(s) ? part(s, kCentre)[o] / scale : part(s, kBase)[o];
        if (by_score(s)) row[1 + o] = 1.0 / scale;
        for (std::size_t i = 0; i < n_inner && (by_score(s) || has_gain(s)); ++i) {
          const double gain = !by_score(s) ? part(s, kGain)[i * n_out + o]
                              : i < o      ? 0.0
                                           : -variance * root(s, i, o) / scale;
          row[0] += gain * part(s, kStack)[i];
          for (std::size_t j = 0; j <= i; ++j) row[1 + j] += gain * root(s, i, j);
        }
        linear.insert(linear.end(), row.begin(), row.end());
      }
  }

  /// What input j adds to inner variable i of the only component.
  double root(std::size_t s, std::size_t i, std::size_t j) const {
    return part(s, kStack)[n_inner + j * n_inner - j * (j + 1) / 2 + i];
  }

  /// By the score where enough of the data is in a point.
  bool by_score(std::size_t step) const { return turn[step * 4 + 2] > 0.0; }
};

/// The mixture itself, from which forms are made where some conditions are unknown: of the end
/// points and the conditions, the same at all steps. Of a student there is one for each step, of
/// start points, end points and conditions.
struct Mixture {
  std::size_t m = 0, p = 0, first_end = 0, n_components = 0, n_sets = 0, rank = 0;
  Span<double> log_weights, means, motion, covariances, factors, diagonals;

  Mixture() = default;

  Mixture(const File& file, const Form& form, std::size_t n_latent, std::size_t n_cond,
          std::size_t n_steps)
      : m(n_latent), n_components(form.n_components) {
    log_weights = file.get<double>("mixture.log_weights");
    n_sets = log_weights.size / n_components;
    const std::size_t all = n_sets * n_components;
    file.require(all == log_weights.size && (n_sets == 1 || n_sets == n_steps),
                 "components of the mixture");
    means = file.get<double>("mixture.means");
    p = means.size / all;
    file.require(p * all == means.size && (p == m + n_cond || p == 2 * m + n_cond),
                 "means of the mixture");
    file.require(form.n_used == n_latent, "closed forms");
    first_end = p - m - n_cond;
    motion = file.get<double>("mixture.motion", 2 * n_steps);
    if (form.kind == kFull) {
      covariances = file.get<double>("mixture.covariances", all * p * p);
      return;
    }
    diagonals = file.get<double>("mixture.diagonals", all * p);
    factors = file.get<double>("mixture.factors");
    rank = factors.size / (all * p);
    file.require(factors.size == all * p * rank && rank == form.n_inner, "factors");
  }

  /// The row of the first component at a step.
  std::size_t row(std::size_t step) const { return n_sets == 1 ? 0 : step * n_components; }

  double mean(std::size_t k, std::size_t v) const { return means[k * p + v]; }
  double factor(std::size_t k, std::size_t v, std::size_t q) const {
    return factors[(k * p + v) * rank + q];
  }
};

/// Turns a positive definite matrix (n, n) into the inverse of its Cholesky factor, lower; returns
/// the logarithms of the factor's diagonal summed up.
inline double inverse_root(std::vector<double>& a, std::size_t n) {
  double logs = 0.0;
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t i = j; i < n; ++i) {
      double value = a[i * n + j];
      for (std::size_t q = 0; q < j; ++q) value -= a[i * n + q] * a[j * n + q];
      a[i * n + j] = i == j ? std::sqrt(value) : value / a[j * n + j];
    }
    logs += std::log(a[j * n + j]);
  }
  for (std::size_t j = 0; j < n; ++j) {  // column by column, each needs the factor right of it
    a[j * n + j] = 1.0 / a[j * n + j];
    for (std::size_t i = j + 1; i < n; ++i) {
      double value = 0.0;
      for (std::size_t q = j; q < i; ++q) value -= a[i * n + q] * a[q * n + j];
      a[i * n + j] = value / a[i * n + i];
    }
    for (std::size_t i = 0; i < j; ++i) a[i * n + j] = 0.0;
  }
  return logs;
}

/// Makes the form of one pattern of known conditions, as flowbdt/flow/closed_form/conditioning.py.
class FormBuilder {
 public:
  FormBuilder(const Mixture& mixture, const Form& whole, std::vector<std::size_t> observed)
      : mixture_(mixture), m_(mixture.m), seen_(mixture.m + observed.size()) {
    form_.kind = whole.kind;
    form_.n_points = m_;
    form_.n_seen = seen_;
    form_.n_components = whole.n_components;
    form_.n_inner = whole.kind == kFull ? seen_ : mixture.rank;
    form_.n_out = whole.n_out;
    form_.n_used = whole.n_used;
    form_.turn = whole.turn;
    form_.observed = std::move(observed);
  }

  std::unique_ptr<Form> build() {
    for (std::size_t step = 0; step < form_.turn.size / 4; ++step) {
      begin(step);
      for (std::size_t k = 0; k < form_.n_components; ++k) {
        if (form_.kind == kFull) full(k);
        else low_rank(k);
      }
    }
    auto result = std::make_unique<Form>(std::move(form_));
    result->numbers = {result->own_numbers.data(), result->own_numbers.size()};
    result->where = {result->own_where.data(), result->own_where.size()};
    result->make_linear();
    return result;
  }

 private:
  /// Where in the mixture the seen variable j is, and the one asked for, o of the end point.
  std::size_t variable(std::size_t j) const {
    return j < m_ ? j : mixture_.first_end + m_ + form_.observed[j - m_];
  }
  std::size_t end(std::size_t o) const { return mixture_.first_end + o; }
  double scale(std::size_t j) const { return j < m_ ? data_ : 1.0; }
  double* part(Where what) { return form_.own_numbers.data() + at_[what]; }

  /// Makes room for a step and finds the centre, the mean of what is seen.
  void begin(std::size_t step) {
    step_ = step;
    row_ = mixture_.row(step);
    data_ = mixture_.motion[2 * step];
    variance_ = mixture_.motion[2 * step + 1];
    const std::size_t k = form_.n_components, i = form_.n_inner, low = form_.kind == kLowRank;
    const std::size_t stack = i * k + (low ? seen_ * i * k : k * seen_ * (seen_ + 1) / 2);
    const std::size_t out = form_.by_score(step) ? 0 : form_.n_out;
    const std::size_t own = low * k * seen_;
    const std::size_t sizes[kParts] = {seen_,   stack,       k,            own, own,
                                       k * out, k * i * out, low * k * out};
    for (std::size_t q = 0; q < kParts; ++q) {
      at_[q] = form_.own_numbers.size();
      form_.own_where.push_back(static_cast<std::int64_t>(at_[q]));
      form_.own_numbers.resize(at_[q] + sizes[q], 0.0);
    }
    if (out == 0) form_.own_where[step * kParts + kGain] = -1;
    for (std::size_t c = 0; c < k; ++c)
      for (std::size_t j = 0; j < seen_; ++j)
        part(kCentre)[j] += std::exp(mixture_.log_weights[row_ + c]) * seen_mean(c, j);
  }

  double seen_mean(std::size_t k, std::size_t j) const {
    return scale(j) * mixture_.mean(row_ + k, variable(j));
  }
  double shift(std::size_t k, std::size_t j) { return seen_mean(k, j) - part(kCentre)[j]; }

  double covariance(std::size_t k, std::size_t i, std::size_t j) const {
    return mixture_.covariances[((row_ + k) * mixture_.p + i) * mixture_.p + j];
  }

  void full(std::size_t k) {
    const std::size_t n = seen_, size = form_.n_components;
    std::vector<double> root(n * n);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j)
        root[i * n + j] = scale(i) * scale(j) * covariance(k, variable(i), variable(j)) +
                          (i == j && i < m_ ? variance_ : 0.0);
    const double logs = inverse_root(root, n);
    part(kConstant)[k] =
        mixture_.log_weights[row_ + k] - logs - 0.5 * static_cast<double>(n) * kLog2Pi;
    double* row = part(kStack);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j <= i; ++j) row[i * size + k] -= root[i * n + j] * shift(k, j);
    row += n * size;
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t i = j; i < n; ++i) row[(i - j) * size + k] = root[i * n + j];
      row += (n - j) * size;
    }
    if (form_.by_score(step_)) return;
    for (std::size_t o = 0; o < m_; ++o) {
      part(kBase)[k * form_.n_out + o] = mixture_.mean(row_ + k, end(o));
      for (std::size_t i = 0; i < n; ++i) {
        double& gain = part(kGain)[(k * n + i) * form_.n_out + o];
        for (std::size_t j = 0; j <= i; ++j)
          gain += scale(j) * covariance(k, end(o), variable(j)) * root[i * n + j];
      }
    }
  }

  void low_rank(std::size_t k) {
    const std::size_t n = seen_, q = mixture_.rank, size = form_.n_components;
    const auto factor = [&](std::size_t j, std::size_t i) {
      return scale(j) * mixture_.factor(row_ + k, variable(j), i);
    };
    std::vector<double> diagonal(n), root(q * q, 0.0);
    double square = 0.0, logs = 0.0;
    for (std::size_t j = 0; j < n; ++j) {
      const double own = mixture_.diagonals[(row_ + k) * mixture_.p + variable(j)];
      diagonal[j] = scale(j) * scale(j) * own + (j < m_ ? variance_ : 0.0);
      part(kQuadratic)[k * n + j] = 1.0 / diagonal[j];
      part(kLinear)[k * n + j] = -2.0 * shift(k, j) / diagonal[j];
      square += shift(k, j) * shift(k, j) / diagonal[j];
      logs += std::log(diagonal[j]);
      for (std::size_t i = 0; i < q; ++i)
        for (std::size_t l = 0; l < q; ++l)
          root[i * q + l] += factor(j, i) * factor(j, l) / diagonal[j];
    }
    for (std::size_t i = 0; i < q; ++i) root[i * q + i] += 1.0;
    logs += 2.0 * inverse_root(root, q);
    part(kConstant)[k] = mixture_.log_weights[row_ + k] -
                         0.5 * (square + logs + static_cast<double>(n) * kLog2Pi);
    double *constants = part(kStack), *rows = constants + q * size;
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t i = 0; i < q; ++i) {
        double value = 0.0;
        for (std::size_t l = 0; l <= i; ++l) value += root[i * q + l] * factor(j, l);
        value /= diagonal[j];
        rows[(j * q + i) * size + k] = value;
        constants[i * size + k] -= value * shift(k, j);
      }
    if (!form_.by_score(step_)) low_rank_outputs(k, diagonal, root);
  }

  void low_rank_outputs(std::size_t k, const std::vector<double>& diagonal,
                        const std::vector<double>& root) {
    const std::size_t q = mixture_.rank, width = form_.n_out;
    for (std::size_t o = 0; o < m_; ++o) {
      // what is a variable's own says something only of the end point itself
      const double own = mixture_.diagonals[(row_ + k) * mixture_.p + o];
      const double ratio = mixture_.first_end > 0 ? 0.0 : data_ * own / diagonal[o];
      part(kRatio)[k * width + o] = ratio;
      part(kBase)[k * width + o] = mixture_.mean(row_ + k, end(o)) - ratio * shift(k, o);
      for (std::size_t i = 0; i < q; ++i)
        for (std::size_t l = 0; l <= i; ++l)
          part(kGain)[(k * q + i) * width + o] +=
              root[i * q + l] * (1.0 - ratio * data_) * mixture_.factor(row_ + k, end(o), l);
    }
  }

  static constexpr double kLog2Pi = 1.837877066409345483560659;
  const Mixture& mixture_;
  std::size_t m_, seen_, step_ = 0, row_ = 0;
  double data_ = 0.0, variance_ = 0.0;
  std::size_t at_[kParts] = {};
  Form form_;
};

// ---------------------------------------------------------------------------------------------
// Loops

inline void add_times(double* __restrict out, double x, const double* __restrict row,
                      std::size_t n) {
  for (std::size_t k = 0; k < n; ++k) out[k] += x * row[k];
}

inline double product(const double* a, const double* b, std::size_t n) {
  double part[8] = {};
  std::size_t k = 0;
  for (; k + 8 <= n; k += 8)
    for (std::size_t q = 0; q < 8; ++q) part[q] += a[k + q] * b[k + q];
  for (; k < n; ++k) part[0] += a[k] * b[k];
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

/// Fills `weights` with exp(log_joint) over its sum; uses `log_joint` up. exp(y) is
/// 2^n exp(y - n log 2) with a Taylor polynomial of degree 13, good to 2e-16.
inline void softmax(double* __restrict log_joint, double* __restrict weights, std::size_t n) {
  constexpr double log2e = 1.44269504088896340736, magic = 6755399441055744.0;  // 1.5 * 2^52
  constexpr double ln2_high = 0.6931471803691238, ln2_low = 1.9082149292705877e-10;
  constexpr double c3 = 1.0 / 6, c4 = c3 / 4, c5 = c4 / 5, c6 = c5 / 6, c7 = c6 / 7, c8 = c7 / 8,
                   c9 = c8 / 9, c10 = c9 / 10, c11 = c10 / 11, c12 = c11 / 12, c13 = c12 / 13;
  const double largest = *std::max_element(log_joint, log_joint + n);
  for (std::size_t k = 0; k < n; ++k) {
    double y = log_joint[k] - largest;
    y = y > -700.0 ? y : -700.0;
    const double shifted = y * log2e + magic;
    std::uint64_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const double whole = shifted - magic;
    bits = (bits + 1023) << 52;
    std::memcpy(&weights[k], &bits, sizeof bits);
    y = (y - whole * ln2_high) - whole * ln2_low;
    double p = ((((y * c13 + c12) * y + c11) * y + c10) * y + c9) * y + c8;
    p = ((((p * y + c7) * y + c6) * y + c5) * y + c4) * y + c3;
    weights[k] *= ((p * y + 0.5) * y + 1.0) * y + 1.0;
  }
  double sum = 0.0;
  for (std::size_t k = 0; k < n; ++k) sum += weights[k];
  const double share = 1.0 / sum;
  for (std::size_t k = 0; k < n; ++k) weights[k] *= share;
}

/// Working memory of a closed form: of some rows, and of up to `kRows` rows what comes out.
struct FormRoom {
  Work<double> seen, inner, joint, own, weights, out;

  void fit(const Form& form, std::size_t rows) {
    const auto most = [](Work<double>& v, std::size_t n) {
      if (v.size() < n) v.resize(n);
    };
    const std::size_t some = std::min(rows, kTogether), all = std::min(rows, kRows);
    most(seen, some * form.n_seen);
    most(weights, all * form.n_components);
    most(out, all * form.n_out);
    if (!form.linear.empty()) return;
    most(inner, some * form.n_inner * form.n_components);
    most(joint, form.n_components);
    most(own, std::max(form.n_out, 2 * form.n_seen));
  }
};

/// Fills `room.out` (n, n_out), the end point, and `room.weights` (n, K) for points (n, m).
class ClosedForm {
 public:
  ClosedForm(const Form& form, std::size_t step, FormRoom& room)
      : form_(form), step_(step), room_(room), size_(form.n_inner * form.n_components) {}

  void operator()(const double* x, const double* cond, std::size_t n_cond, std::size_t n) {
    for (std::size_t low = 0; low < n; low += kTogether) {
      const std::size_t rows = std::min(kTogether, n - low);
      see(x + low * form_.n_points, cond + low * n_cond, n_cond, rows);
      if (!form_.linear.empty()) {
        linear(low, rows);
        continue;
      }
      inner(rows);
      for (std::size_t r = 0; r < rows; ++r) {
        joint(seen(r), inner_of(r));
        softmax(room_.joint.data(), weights(low + r), form_.n_components);
      }
      if (form_.by_score(step_)) end_points(x, low, rows);
      else outputs(low, rows);
    }
  }

 private:
  double* seen(std::size_t r) { return room_.seen.data() + r * form_.n_seen; }
  double* inner_of(std::size_t r) { return room_.inner.data() + r * size_; }
  double* weights(std::size_t r) { return room_.weights.data() + r * form_.n_components; }
  double* out(std::size_t r) { return room_.out.data() + r * form_.n_out; }

  void see(const double* x, const double* cond, std::size_t n_cond, std::size_t rows) {
    const double* centre = form_.part(step_, kCentre);
    const std::size_t m = form_.n_points;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t j = 0; j < m; ++j) seen(r)[j] = x[r * m + j] - centre[j];
      for (std::size_t j = 0; j < form_.observed.size(); ++j)
        seen(r)[m + j] = cond[r * n_cond + form_.observed[j]] - centre[m + j];
    }
  }

  /// In four sums, as the kernels: none waits long for the one before.
  void linear(std::size_t low, std::size_t rows) {
    const double* first = form_.linear.data() + step_ * form_.n_used * (1 + form_.n_seen);
    for (std::size_t r = 0; r < rows; ++r) {
      weights(low + r)[0] = 1.0;
      const double* row = first;
      for (std::size_t o = 0; o < form_.n_used; ++o, row += 1 + form_.n_seen) {
        double part[4] = {row[0], 0.0, 0.0, 0.0};
        std::size_t j = 0;
        for (; j + 4 <= form_.n_seen; j += 4)
          for (std::size_t q = 0; q < 4; ++q) part[q] += row[1 + j + q] * seen(r)[j + q];
        for (; j < form_.n_seen; ++j) part[j % 4] += row[1 + j] * seen(r)[j];
        out(low + r)[o] = (part[0] + part[1]) + (part[2] + part[3]);
      }
    }
  }

  void inner(std::size_t rows) {
    const double* row = form_.part(step_, kStack);
    for (std::size_t r = 0; r < rows; ++r) std::copy_n(row, size_, inner_of(r));
    row += size_;
    for (std::size_t j = 0; j < form_.n_seen; ++j) {
      const std::size_t skipped = form_.skipped(j);
      for (std::size_t r = 0; r < rows; ++r)
        add_times(inner_of(r) + skipped, seen(r)[j], row, size_ - skipped);
      row += size_ - skipped;
    }
  }

  /// Fills `room.joint` (K) with log(weight k) + log p_k of one row.
  void joint(const double* x, const double* own) {
    const std::size_t n = form_.n_components;
    double* __restrict joint = room_.joint.data();
    std::fill(joint, joint + n, 0.0);
    for (std::size_t i = 0; i < form_.n_inner; ++i)
      for (std::size_t k = 0; k < n; ++k) joint[k] += own[i * n + k] * own[i * n + k];
    if (form_.kind == kLowRank) {
      const double *quadratic = form_.part(step_, kQuadratic), *linear = form_.part(step_, kLinear);
      for (std::size_t k = 0; k < n; ++k, quadratic += form_.n_seen, linear += form_.n_seen) {
        double part[4] = {};
        for (std::size_t j = 0; j < form_.n_seen; ++j)
          part[j % 4] += (quadratic[j] * x[j] + linear[j]) * x[j];
        joint[k] = ((part[0] + part[1]) + (part[2] + part[3])) - joint[k];
      }
    }
    const double* constant = form_.part(step_, kConstant);
    for (std::size_t k = 0; k < n; ++k) joint[k] = constant[k] - 0.5 * joint[k];
  }

  /// By Tweedie's formula, E[x1 | x] = (x + variance score) / scale.
  void end_points(const double* x, std::size_t low, std::size_t rows) {
    const std::size_t n = form_.n_components, m = form_.n_points;
    const double scale = form_.turn[step_ * 4 + 2], variance = form_.turn[step_ * 4 + 3];
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < form_.n_inner; ++i)
        for (std::size_t k = 0; k < n; ++k) inner_of(r)[i * n + k] *= weights(low + r)[k];
    const double* row = form_.part(step_, kStack) + size_;
    for (std::size_t j = 0; j < m; ++j) {
      const std::size_t skipped = form_.skipped(j);
      for (std::size_t r = 0; r < rows; ++r)
        out(low + r)[j] = product(row, inner_of(r) + skipped, size_ - skipped);
      row += size_ - skipped;
    }
    for (std::size_t r = 0; r < rows; ++r) {
      double* end = out(low + r);
      if (form_.kind == kLowRank) own_pull(seen(r), weights(low + r), end);
      for (std::size_t j = 0; j < m; ++j)
        end[j] = (x[(low + r) * m + j] - variance * end[j]) / scale;
    }
  }

  /// Turns `end`, stack^T inner, into the mean of D^-1 (r - mean) minus it.
  void own_pull(const double* seen, const double* weights, double* end) {
    const std::size_t m = form_.n_points;
    double *slope = room_.own.data(), *level = slope + m;
    std::fill(slope, slope + 2 * m, 0.0);
    const double *quadratic = form_.part(step_, kQuadratic), *linear = form_.part(step_, kLinear);
    for (std::size_t k = 0; k < form_.n_components; ++k) {
      add_times(slope, weights[k], quadratic + k * form_.n_seen, m);
      add_times(level, weights[k], linear + k * form_.n_seen, m);
    }
    for (std::size_t j = 0; j < m; ++j) end[j] = (seen[j] * slope[j] + 0.5 * level[j]) - end[j];
  }

  /// From the gains of all components, whatever the step.
  void outputs(std::size_t low, std::size_t rows) {
    const std::size_t n = form_.n_components, width = form_.n_out;
    for (std::size_t r = 0; r < rows; ++r) {
      double *end = out(low + r), *own = room_.own.data();
      const double* share = weights(low + r);
      std::fill(end, end + width, 0.0);
      for (std::size_t k = 0; k < n; ++k) {
        add_times(end, share[k], form_.part(step_, kBase) + k * width, width);
        if (!form_.has_gain(step_)) continue;
        const double* gain = form_.part(step_, kGain) + k * form_.n_inner * width;
        for (std::size_t i = 0; i < form_.n_inner; ++i)
          add_times(end, share[k] * inner_of(r)[i * n + k], gain + i * width, width);
      }
      if (form_.kind != kLowRank) continue;
      std::fill(own, own + width, 0.0);
      for (std::size_t k = 0; k < n; ++k)
        add_times(own, share[k], form_.part(step_, kRatio) + k * width, width);
      for (std::size_t o = 0; o < form_.n_used; ++o) end[o] += seen(r)[o % form_.n_points] * own[o];
    }
  }

  const Form& form_;
  std::size_t step_;
  FormRoom& room_;
  std::size_t size_;
};

// ---------------------------------------------------------------------------------------------
// Columns

enum Undo { kScaled, kRank, kCategorical, kInteger, kFixed, kCircular, kLattice };
enum Term { kColumn, kNumber, kAdd, kSubtract, kMultiply, kDivide, kPower, kNegate, kLog, kExp,
            kSqrt, kAbs, kMinimum, kMaximum, kWrap, kSin, kCos, kTan, kSinh, kCosh, kTanh,
            kArcsinh, kRint, kArctan2, kHypot, kSignedRoot, kLess, kLessEqual, kEqual, kAnd, kOr,
            kNot, kWhere };
enum Stored { kAsIs, kSingle, kTruth, kWhole, kEightDigits, kNineDigits, kRounded };

inline double within(double value, double low, double high) {
  return std::min(std::max(value, low), high);
}

inline double logistic(double y) {
  const double small = std::exp(-std::abs(y));
  return (y < 0 ? small : 1.0) / (1.0 + small);
}

/// Undoes the logarithm or logit of flowbdt/tables/transforms/smooth.py.
inline double unbent(const double* p, double bent) {
  const double low = p[8], edge = p[9];
  const bool at_low = p[10] != 0.0;
  if (p[0] == 0.0) return bent;
  if (p[0] == 1.0) {
    const double distance = std::exp(bent);
    return low + (at_low && distance <= edge * (1 + 1e-9) ? 0.0 : distance);
  }
  const double high = p[11], width = high - low;
  double value = bent < 0 ? low + width * logistic(bent) : high - width * logistic(-bent);
  if (at_low && value - low <= edge * (1 + 1e-9)) value = low;
  if (p[13] != 0.0 && high - value <= p[12] * (1 + 1e-9)) value = high;
  return within(value, low, high);
}

inline double scaled(const double* p, double z) {
  z = within(z, p[3], p[4]);
  double value = unbent(p, p[1] + p[2] * z);
  if (p[5] == 0.0) return within(value, -DBL_MAX, DBL_MAX);
  if (z <= p[3]) value = p[6];
  if (z >= p[4]) value = p[7];
  return within(value, p[6], p[7]);
}

/// How many of n sorted values are not above `value`.
inline std::size_t after(const double* sorted, std::size_t n, double value) {
  return static_cast<std::size_t>(std::upper_bound(sorted, sorted + n, value) - sorted);
}

inline double ranked(const double* p, double z) {
  const std::size_t n = static_cast<std::size_t>(p[0]);
  const double *knots = p + 1, *x = knots + n, *slope = x + n;
  z = within(z, knots[0], knots[n - 1]);
  const std::size_t i = std::min(after(knots, n, z) - 1, n - 2);
  return within(x[i] + (z - knots[i]) * slope[i], x[0], x[n - 1]);
}

/// The angle of a point in the plane, in [low, low + period).
inline double turned(const double* p, const double* z) {
  const double low = p[0], period = p[1];
  double turn = std::fmod(std::atan2(z[1], z[0]) / 6.283185307179586476925, 1.0);
  if (turn < 0.0) turn += 1.0;
  const double value = low + period * turn;
  return value < low + period ? value : low;
}

/// What is read after printing with so many significant digits.
inline double in_digits(int digits, double value) {
  static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  const int exponent = static_cast<int>(std::floor(std::log10(std::max(std::abs(value), 1e-14))));
  const int shift = digits - 1 - exponent;
  const double up = powers[std::min(std::max(shift, 0), 22)];
  const double down = powers[std::min(std::max(-shift, 0), 22)];
  return std::nearbyint(value * up / down) * down / up;
}

/// Rounded to so many bits of its mantissa.
inline double in_bits(std::int64_t bits, double value) {
  const std::int64_t cut = 52 - bits;
  std::uint64_t word;
  std::memcpy(&word, &value, sizeof word);
  word = (word + (std::uint64_t{1} << (cut - 1))) & ~((std::uint64_t{1} << cut) - 1);
  std::memcpy(&value, &word, sizeof word);
  return value;
}

inline double as_stored(std::int64_t kind, const double* p, double value) {
  if (kind == kTruth) return value >= 0.5 ? 1.0 : 0.0;
  if (kind == kWhole) return within(std::nearbyint(value), p[0], p[1]);
  value = within(value, p[0], p[1]);
  if (kind == kAsIs) return value;
  if (kind >= kRounded) value = in_bits(kind - kRounded, value);
  value = static_cast<double>(static_cast<float>(value));
  if (kind >= kRounded) return value;
  return kind == kSingle ? value : in_digits(kind == kEightDigits ? 8 : 9, value);
}

inline double pair(std::int64_t code, double a, double b) {
  switch (code) {
    case kAdd: return a + b;
    case kSubtract: return a - b;
    case kMultiply: return a * b;
    case kDivide: return a / b;
    case kPower: return std::pow(a, b);
    case kArctan2: return std::atan2(a, b);
    case kHypot: return std::hypot(a, b);
    case kLess: return a < b;
    case kLessEqual: return a <= b;
    case kEqual: return a == b;
    case kAnd: return a != 0.0 && b != 0.0;
    case kOr: return a != 0.0 || b != 0.0;
    default: break;
  }
  if (a != a || b != b) return std::numeric_limits<double>::quiet_NaN();
  return code == kMinimum ? std::min(a, b) : std::max(a, b);
}

/// How many of the last numbers of the stack a term replaces.
inline std::size_t taken(std::int64_t code) {
  if (code <= kNumber) return 0;
  if (code == kWhere) return 3;
  return (code >= kNegate && code <= kAbs) || (code >= kWrap && code <= kRint) ||
                 code == kSignedRoot || code == kNot
             ? 1
             : 2;
}

constexpr double kPi = 3.141592653589793;

/// Moves an angle by whole turns to those from `low` on.
inline double wrapped(double angle, double low = -kPi) {
  const double turned = std::fmod(angle - low, 2 * kPi);
  return (turned < 0 ? turned + 2 * kPi : turned) + low;
}

inline double single(std::int64_t code, double a) {
  switch (code) {
    case kNegate: return -a;
    case kLog: return std::log(a);
    case kExp: return std::exp(a);
    case kSqrt: return std::sqrt(a);
    case kWrap: return wrapped(a);
    case kSin: return std::sin(a);
    case kCos: return std::cos(a);
    case kTan: return std::tan(a);
    case kSinh: return std::sinh(a);
    case kCosh: return std::cosh(a);
    case kTanh: return std::tanh(a);
    case kArcsinh: return std::asinh(a);
    case kRint: return std::nearbyint(a);
    case kSignedRoot: return std::copysign(std::sqrt(std::abs(a)), a);
    case kNot: return a == 0.0;
    default: return std::abs(a);
  }
}

/// Evaluates the terms `begin` to `end`; `value_of` tells the number of a place, see
/// `arrays.InverseArrays`. `known` becomes false if one is missing.
template <class ValueOf>
double evaluated(const Span<std::int64_t>& terms, const Span<double>& numbers, std::int64_t begin,
                 std::int64_t end, ValueOf&& value_of, double* stack, bool& known) {
  std::size_t top = 0;
  for (std::int64_t q = begin; q < end; ++q) {
    const std::int64_t code = terms.data[2 * q];
    const std::size_t takes = taken(code);
    if (takes == 0) {  // only a column and a number
      const double value = numbers.data[terms.data[2 * q + 1]];
      stack[top] = code == kNumber ? value : value_of(static_cast<std::size_t>(value));
      known = known && !std::isnan(stack[top]);
      ++top;
    } else if (takes == 1) {
      stack[top - 1] = single(code, stack[top - 1]);
    } else if (takes == 2) {
      stack[top - 2] = pair(code, stack[top - 2], stack[top - 1]);
      --top;
    } else {
      stack[top - 3] = stack[top - 3] != 0.0 ? stack[top - 2] : stack[top - 1];
      top -= 2;
    }
  }
  return stack[0];
}

/// Whether each term of an expression of so many numbers finds what it needs, and one number is
/// left at the end; `last` becomes the largest place that it reads, if that is larger.
inline bool whole_expression(const Span<std::int64_t>& terms, const Span<double>& numbers,
                             std::int64_t begin, std::int64_t end, std::size_t n_known,
                             double* last = nullptr) {
  std::size_t depth = 0;
  for (std::int64_t q = begin; q < end; ++q) {
    const std::int64_t code = terms.data[2 * q], at = terms.data[2 * q + 1];
    if (code < kColumn || code > kWhere || at < 0 || static_cast<std::uint64_t>(at) >= numbers.size)
      return false;
    const double value = numbers.data[at];
    if (code == kColumn && !(value >= 0.0 && value < static_cast<double>(n_known))) return false;
    if (code == kColumn && last != nullptr) *last = std::max(*last, value);
    const std::size_t takes = taken(code);
    if (depth < takes) return false;
    depth += 1 - takes;
  }
  return depth == 1;
}

/// From latent points to columns; see `arrays.InverseArrays`.
class Way {
 public:
  Way() = default;

  explicit Way(const File& file) {
    const auto sizes = file.sizes("inverse", 4);
    m_ = sizes[0];
    n_columns_ = sizes[1];
    n_cond_ = sizes[2];
    mixes_ = sizes[3] != 0;
    scale_ = file.get<double>("inverse.scale");
    mean_ = file.get<double>("inverse.mean", scale_.size);
    axes_ = file.get<double>("inverse.axes");
    file.require(mixes_ ? axes_.size == m_ * scale_.size : scale_.size == m_, "latent columns");
    columns_ = file.get<std::int64_t>("inverse.columns");
    file.require(columns_.size >= 5 * n_columns_ && columns_.size % 5 == 0, "columns");
    ops_ = file.get<std::int64_t>("inverse.ops");
    relations_ = file.get<std::int64_t>("inverse.relations");
    terms_ = file.get<std::int64_t>("inverse.terms");
    numbers_ = file.get<double>("inverse.numbers");
    check(file);
    if (file.has("turn.sizes")) read_turn(file);
  }

  std::size_t n_latent() const { return m_; }
  std::size_t n_columns() const { return n_columns_; }
  std::size_t n_conditions() const { return n_cond_; }
  /// Whether events are to be turned about the beam.
  bool turns() const { return angles_.size + vectors_.size > 0; }
  /// Whether a relation reads a condition.
  bool needs_conditions() const { return needs_conditions_; }
  /// Columns of the table, and behind them those that are learned in place of some.
  std::size_t n_all() const { return columns_.size / 5; }
  /// Latent columns, and columns that are learned in place of others.
  std::size_t n_values() const { return scale_.size + n_all() - n_columns_; }
  std::size_t deepest() const { return terms_.size / 2 + 1; }

  /// Fills x (n_columns) from z (n_latent) and the conditions, in the units of the training, that
  /// relations use; returns how many relations are undefined.
  std::size_t restore(const double* z, const double* cond, double* x, double* latent,
                      double* stack) const {
    for (std::size_t c = 0; c < scale_.size; ++c) {
      double value = mixes_ ? 0.0 : z[c];
      if (mixes_)
        for (std::size_t j = 0; j < m_; ++j) value += z[j] * axes_[j * scale_.size + c];
      latent[c] = value * scale_[c] + mean_[c];
    }
    double* learned = latent + scale_.size;
    for (std::size_t i = 0; i < n_all(); ++i) {
      const std::int64_t* column = columns_.data + 5 * i;
      if (column[0] < -1) continue;
      const double* from = latent + std::max<std::int64_t>(column[0], 0);
      const double value = undone(column[1], column[2], from);
      double& to = i < n_columns_ ? x[i] : learned[i - n_columns_];
      to = as_stored(column[3], numbers_.data + column[4], value);
    }
    return relate(0, x, cond, latent, stack);
  }

  /// Turns an event by an angle; then what follows from that, see `relate`, which also tells what is
  /// returned. Of columns with fewer digits than their type, those that turn have all.
  std::size_t turn(double angle, double* x, const double* cond, const double* latent,
                   double* stack) const {
    const auto store = [&](std::int64_t place, double value) {
      const std::int64_t* column = columns_.data + 5 * place;
      x[place] = as_stored(column[3] > kWhole ? std::int64_t{kSingle} : column[3],
                           numbers_.data + column[4], value);
    };
    for (std::size_t i = 0; i < angles_.size; ++i) {
      const double low = lows_.data[i], end = low + 2 * kPi;
      const double moved = wrapped(x[angles_.data[i]] + angle, low);
      store(angles_.data[i], std::min(moved, std::nextafter(end, low)));
    }
    const double cosine = std::cos(angle), sine = std::sin(angle);
    for (std::size_t i = 0; i < vectors_.size; i += 2) {
      const double along = x[vectors_.data[i]], across = x[vectors_.data[i + 1]];
      store(vectors_.data[i], along * cosine - across * sine);
      store(vectors_.data[i + 1], along * sine + across * cosine);
    }
    return relate(turned_, x, cond, latent, stack);
  }

  /// Fills in what the relations from number `first` on say; `latent` is what `restore` left there.
  std::size_t relate(std::size_t first, double* x, const double* cond, const double* latent,
                     double* stack) const {
    const double* learned = latent + scale_.size;
    const auto value_of = [&](std::size_t place) {
      return place < n_columns_ ? x[place]
             : place < n_all()  ? learned[place - n_columns_]
                                : cond[place - n_all()];
    };
    std::size_t undefined = 0;
    for (std::size_t q = 4 * first; q < relations_.size; q += 4) {
      const std::int64_t* relation = relations_.data + q;
      const std::int64_t* column = columns_.data + 5 * relation[0];
      bool known = true;
      double value = evaluated(terms_, numbers_, relation[1], relation[2], value_of, stack, known);
      if (!known) {
        x[relation[0]] = std::numeric_limits<double>::quiet_NaN();
        continue;
      }
      if (!std::isfinite(value)) {
        value = numbers_[static_cast<std::size_t>(relation[3]) + (value > 0 ? 1 : 0)];
        ++undefined;
      }
      x[relation[0]] = as_stored(column[3], numbers_.data + column[4], value);
    }
    return undefined;
  }

 private:
  /// Whether `count` numbers begin at i.
  bool numbers_at(std::int64_t i, std::size_t count) const {
    return i >= 0 && static_cast<std::uint64_t>(i) <= numbers_.size &&
           count <= numbers_.size - static_cast<std::size_t>(i);
  }

  static bool run(std::int64_t begin, std::int64_t end, std::size_t n) {
    return begin >= 0 && begin <= end && static_cast<std::uint64_t>(end) <= n;
  }

  void check(const File& file) {
    const std::size_t n_ops = ops_.size / 2, n_terms = terms_.size / 2;
    for (std::size_t i = 0; i < n_all(); ++i) {
      const std::int64_t* c = columns_.data + 5 * i;
      file.require((c[0] < 0 || static_cast<std::uint64_t>(c[0]) < scale_.size) &&
                       run(c[1], c[2], n_ops) && c[3] >= 0 && c[3] < kRounded + 52 &&
                       numbers_at(c[4], 2),
                   "columns");
    }
    for (std::size_t q = 0; q < n_ops; ++q)
      file.require(whole_op(ops_[2 * q], ops_[2 * q + 1]), "transforms");
    file.require(relations_.size % 4 == 0, "relations");
    double last = -1.0;
    for (std::size_t q = 0; q < relations_.size; q += 4)
      file.require(relations_[q] >= 0 && static_cast<std::size_t>(relations_[q]) < n_columns_ &&
                       run(relations_[q + 1], relations_[q + 2], n_terms) &&
                       numbers_at(relations_[q + 3], 2) &&
                       whole_expression(terms_, numbers_, relations_[q + 1], relations_[q + 2],
                                        n_all() + n_cond_, &last),
                   "relations");
    needs_conditions_ = last >= static_cast<double>(n_all());
  }

  /// Whether an operation is known and all of its numbers are there.
  bool whole_op(std::int64_t code, std::int64_t at) const {
    if (!numbers_at(at, 1)) return false;
    const double first = numbers_[static_cast<std::size_t>(at)];
    const double most = static_cast<double>(numbers_.size);
    switch (code) {
      case kScaled: return numbers_at(at, 14);
      case kRank:
        return first >= 2 && first <= most && numbers_at(at, 3 * static_cast<std::size_t>(first));
      case kCategorical:
        return first >= 1 && first <= most && numbers_at(at, 2 * static_cast<std::size_t>(first));
      case kInteger:
      case kCircular: return numbers_at(at, 2);
      case kLattice: return numbers_at(at, 5);
      default: return code == kFixed;
    }
  }

  double undone(std::int64_t begin, std::int64_t end, const double* latent) const {
    double z = latent[0];
    for (std::int64_t q = begin; q < end; ++q) {
      const double* p = numbers_.data + ops_.data[2 * q + 1];
      switch (ops_.data[2 * q]) {
        case kScaled: z = scaled(p, z); break;
        case kRank: z = ranked(p, z); break;
        case kCategorical: {
          const std::size_t n = static_cast<std::size_t>(p[0]);
          z = p[n + after(p + 1, n - 1, z)];
          break;
        }
        case kInteger: z = within(std::floor(z), p[0], p[1]); break;
        case kCircular: z = turned(p, latent); break;
        case kLattice: z = (p[2] + p[3] * within(std::floor(z), p[0], p[1])) / p[4]; break;
        default: z = p[0];
      }
    }
    return z;
  }

  void read_turn(const File& file) {
    turned_ = file.sizes("turn", 1)[0];
    angles_ = file.get<std::int64_t>("turn.angles");
    lows_ = file.get<double>("turn.lows", angles_.size);
    vectors_ = file.get<std::int64_t>("turn.vectors");
    bool good = turned_ <= relations_.size / 4 && vectors_.size % 2 == 0;
    for (const auto& places : {angles_, vectors_})
      for (std::size_t i = 0; i < places.size; ++i)
        good = good && places[i] >= 0 && static_cast<std::size_t>(places[i]) < n_columns_;
    for (std::size_t i = 0; i < lows_.size; ++i) good = good && std::isfinite(lows_[i]);
    file.require(good, "columns that turn");
  }

  bool mixes_ = false, needs_conditions_ = false;
  std::size_t m_ = 0, n_columns_ = 0, n_cond_ = 0, turned_ = 0;
  Span<double> axes_, scale_, mean_, numbers_, lows_;
  Span<std::int64_t> columns_, ops_, relations_, terms_, angles_, vectors_;
};

// ---------------------------------------------------------------------------------------------
// Columns that classifiers draw

/// All classifiers in one pass, row by row; see `arrays.DiscreteArrays`.
class Discrete {
 public:
  explicit Discrete(const File& file, const std::string& trees = "trees") : trees_(file, trees) {
    const auto sizes = file.sizes("discrete", 2);
    d_ = sizes[0];
    n_known_ = sizes[1];
    places_ = file.get<std::int64_t>("discrete.places");
    centre_ = file.get<double>("discrete.centre", places_.size);
    scale_ = file.get<double>("discrete.scale", places_.size);
    forests_ = file.get<std::int64_t>("discrete.forests");
    file.require(forests_.size > 1 && forests_.size <= 1 << 20, "discrete columns");
    first_ = file.get<std::int64_t>("discrete.first", forests_.size);
    log_frequency_ = file.get<float>("discrete.log_frequency");
    atom_ = file.get<double>("discrete.atom", log_frequency_.size);
    source_ = file.get<std::int64_t>("discrete.source", log_frequency_.size);
    enters_ = file.get<std::int64_t>("discrete.enters", 3 * n_columns());
    limits_ = file.get<double>("discrete.limits", 2 * n_columns());
    rules_ = file.get<std::int64_t>("discrete.rules", forests_.size);
    rule_ = file.get<std::int64_t>("discrete.rule");
    meet_ = file.get<std::uint8_t>("discrete.meet");
    check(file);
  }

  /// Working memory.
  struct Room {
    TreeRow row;
    Work<float> inputs, total;
    Work<double> joint, weights;
    Work<std::uint8_t> allowed;
  };

  std::size_t d() const { return d_; }
  Trees& trees() { return trees_; }
  std::size_t n_known() const { return n_known_; }
  std::size_t n_columns() const { return forests_.size - 1; }
  std::size_t n_values(std::size_t k) const { return at(first_[k + 1]) - at(first_[k]); }
  /// Where the values of column k begin in what has a number for each.
  std::size_t first(std::size_t k) const { return at(first_[k]); }

  /// Fills codes (n, q) from x (n, d), what else is known (n, k) and uniform numbers, of which
  /// those of one column are `stride` from those of the one before; enters in x what codes say.
  void draw(double* x, const double* known, const double* uniform, std::size_t stride,
            std::int64_t* codes, std::size_t n, Room& room) const {
    const std::size_t width = trees_.n_inputs();
    Work<float>&inputs = room.inputs, &total = room.total;
    for (std::size_t low = 0; low < n; low += kBlock) {
      const std::size_t rows = std::min(kBlock, n - low);
      fit(room, rows);
      for (std::size_t r = 0; r < rows; ++r) {
        float* to = inputs.data() + r * width;
        for (std::size_t i = 0; i < places_.size; ++i)
          to[i] = seen(i, x[(low + r) * d_ + static_cast<std::size_t>(places_[i])]);
        for (std::size_t i = 0; i < n_known_; ++i)
          to[places_.size + i] = static_cast<float>(known[(low + r) * n_known_ + i]);
      }
      for (std::size_t k = 0; k < n_columns(); ++k) {
        trees_.sum(at(forests_[k]), at(forests_[k + 1]), inputs.data(), rows, width,
                   total.data(), room.row);
        for (std::size_t r = 0; r < rows; ++r) {
          double* row = x + (low + r) * d_;
          std::int64_t* own = codes + (low + r) * n_columns();
          own[k] = drawn(k, total.data() + r * trees_.across(), own,
                         uniform[k * stride + low + r], room);
          float* to = inputs.data() + r * width;
          to[places_.size + n_known_ + k] = static_cast<float>(own[k]);
          enter(k, own[k], row);
          if (enters_[3 * k] >= 0 && enters_[3 * k + 1] >= 0) {
            const std::size_t i = at(enters_[3 * k + 1]);
            to[i] = seen(i, row[at(enters_[3 * k])]);
          }
        }
      }
    }
  }

  /// Fills `room.weights` with the probabilities of the values of the first column, given what is
  /// known (k) where no column is.
  void probabilities(const double* known, Room& room) const {
    fit(room, 1);
    for (std::size_t i = 0; i < n_known_; ++i) room.inputs[i] = static_cast<float>(known[i]);
    trees_.sum(0, at(forests_[1]), room.inputs.data(), 1, trees_.n_inputs(), room.total.data(),
               room.row);
    weigh(0, room.total.data(), false, room);
  }

  /// Enters in a row (d) what a code says of another column, see `Pattern.enter`.
  void enter(std::size_t k, std::int64_t code, double* row) const {
    const std::size_t value = at(first_[k]) + at(code);
    if (enters_[3 * k] < 0) return;
    double& to = row[at(enters_[3 * k])];
    if (source_[value] >= 0)
      to = as_stored(enters_[3 * k + 2], limits_.data + 2 * k, row[at(source_[value])]);
    else if (!std::isnan(atom_[value]))
      to = atom_[value];
  }

 private:
  static constexpr double kExcluded = -1e30;

  void fit(Room& room, std::size_t rows) const {
    room.inputs.assign(rows * trees_.n_inputs(), 0.0f);
    room.total.resize(rows * trees_.across());
    room.joint.resize(n_values_);
    room.weights.resize(n_values_);
    room.allowed.resize(n_values_);
  }

  static std::size_t at(std::int64_t place) { return static_cast<std::size_t>(place); }

  static bool below(std::int64_t place, std::size_t end) {
    return place >= 0 && static_cast<std::uint64_t>(place) < end;
  }

  void check(const File& file) {
    const char* what = "discrete columns";
    const std::size_t q = n_columns();
    file.require(std::max<std::size_t>(places_.size + n_known_, 1) + q == trees_.n_inputs(), what);
    for (std::size_t i = 0; i < places_.size; ++i) file.require(below(places_[i], d_), what);
    file.require(forests_[0] == 0 && first_[0] == 0 && rules_[0] == 0, what);
    for (std::size_t k = 0; k < q; ++k) {
      file.require(forests_[k] <= forests_[k + 1] && first_[k] < first_[k + 1] &&
                       rules_[k] <= rules_[k + 1],
                   what);
      const std::size_t size = at(first_[k + 1]) - at(first_[k]);
      file.require(size <= trees_.n_outputs(), what);
      n_values_ = std::max(n_values_, size);
      const std::int64_t* enters = enters_.data + 3 * k;
      file.require(enters[0] == -1 || below(enters[0], d_), what);
      file.require(enters[1] == -1 || below(enters[1], places_.size), what);
    }
    file.require(at(forests_[q]) <= trees_.n_forests() && at(first_[q]) == source_.size &&
                     at(rules_[q]) <= rule_.size / 2,
                 what);
    for (std::size_t i = 0; i < source_.size; ++i)
      file.require(source_[i] == -1 || below(source_[i], d_), what);
    for (std::size_t k = 0; k < q; ++k)
      for (std::size_t r = at(rules_[k]); r < at(rules_[k + 1]); ++r) {
        file.require(below(rule_[2 * r], k) && rule_[2 * r + 1] >= 0, what);
        const std::size_t before = at(rule_[2 * r]);
        const std::size_t pairs = n_values(before) * n_values(k);
        file.require(at(rule_[2 * r + 1]) <= meet_.size &&
                         pairs <= meet_.size - at(rule_[2 * r + 1]),
                     what);
      }
  }

  float seen(std::size_t i, double value) const {
    constexpr double largest = std::numeric_limits<float>::max();
    return static_cast<float>(within((value - centre_[i]) / scale_[i], -largest, largest));
  }

  /// Fills `allowed` with what column k may be beside earlier codes; false if it may be all.
  bool excludes(std::size_t k, const std::int64_t* codes, Work<std::uint8_t>& allowed) const {
    const std::size_t begin = at(rules_[k]), end = at(rules_[k + 1]), size = n_values(k);
    if (begin == end) return false;
    bool some = false;
    for (std::size_t o = 0; o < size; ++o) {
      bool may = true;
      for (std::size_t r = begin; r < end; ++r)
        may = may && meet_[at(rule_[2 * r + 1]) + at(codes[rule_[2 * r]]) * size + o] != 0;
      allowed[o] = may;
      some = some || may;
    }
    return some;
  }

  /// Fills `room.weights` with the probabilities of the classifier.
  void weigh(std::size_t k, const float* total, bool some_not, Room& room) const {
    const std::size_t size = n_values(k);
    for (std::size_t o = 0; o < size; ++o) {
      const float sum = total[o] + log_frequency_[at(first_[k]) + o];
      room.joint[o] = some_not && !room.allowed[o] ? kExcluded : static_cast<double>(sum);
    }
    softmax(room.joint.data(), room.weights.data(), size);
  }

  /// Returns a code with these probabilities; see `seeding.drawn`.
  std::int64_t drawn(std::size_t k, const float* total, const std::int64_t* codes, double uniform,
                     Room& room) const {
    const std::size_t size = n_values(k);
    if (size == 1) return 0;
    const bool some_not = excludes(k, codes, room.allowed);
    weigh(k, total, some_not, room);
    std::size_t last = size - 1;
    while (some_not && last > 0 && !room.allowed[last]) --last;
    double edge = 0.0;
    for (std::size_t code = 0; code < last; ++code) {
      edge += some_not && !room.allowed[code] ? 0.0 : room.weights[code];
      if (edge > uniform) return static_cast<std::int64_t>(code);
    }
    return static_cast<std::int64_t>(last);
  }

  Trees trees_;
  std::size_t d_ = 0, n_known_ = 0, n_values_ = 0;
  Span<std::int64_t> places_, forests_, first_, source_, enters_, rules_, rule_;
  Span<double> centre_, scale_, atom_, limits_;
  Span<float> log_frequency_;
  Span<std::uint8_t> meet_;
};

/// The probability with which to keep what has this logarithm of the ratio.
inline double acceptance(float log_ratio, double ceiling) {
  return std::min(std::exp(static_cast<double>(log_ratio)) / ceiling, 1.0);
}

/// A number within the range of float; NaN stays.
inline double within_single(double value) {
  constexpr double largest = std::numeric_limits<float>::max();
  return std::min(std::max(value, -largest), largest);
}

/// What trees see after columns and conditions; see `arrays.ExpressionArrays`.
class Expressions {
 public:
  Expressions() = default;

  Expressions(const File& file, const std::string& part, const Way& way)
      : d_(way.n_columns()), c_(way.n_conditions()),
        learned_(file.get<std::int64_t>(part + ".learned")),
        terms_(file.get<std::int64_t>(part + ".terms")),
        numbers_(file.get<double>(part + ".numbers")) {
    bool good = learned_.size % 2 == 0;
    std::int64_t end = 0;
    for (std::size_t i = 0; good && i < size(); ++i) {
      good = learned_[2 * i] == end && learned_[2 * i + 1] > end &&
             static_cast<std::uint64_t>(learned_[2 * i + 1]) <= terms_.size / 2;
      end = learned_[2 * i + 1];
      good = good && whole_expression(terms_, numbers_, learned_[2 * i], end, d_ + c_ + i);
    }
    file.require(good, "expressions");
  }

  std::size_t size() const { return learned_.size / 2; }
  std::size_t deepest() const { return terms_.size / 2; }

  /// Fills `out` (size) for an event (d) and its conditions (c) as they are; a condition is 1 where it
  /// holds, else 0. The stack has room for `deepest` numbers.
  void compute(const double* x, const double* given, double* stack, double* out) const {
    const auto value_of = [&](std::size_t place) {
      return place < d_ ? x[place] : place < d_ + c_ ? given[place - d_] : out[place - d_ - c_];
    };
    for (std::size_t i = 0; i < size(); ++i) {
      bool known = true;
      out[i] = evaluated(terms_, numbers_, learned_[2 * i], learned_[2 * i + 1], value_of, stack,
                         known);
    }
  }

 private:
  std::size_t d_ = 0, c_ = 0;
  Span<std::int64_t> learned_, terms_;
  Span<double> numbers_;
};

/// What stands in the interval (0, 1) where a normal number stands among all.
inline double uniform_of(double normal) { return 0.5 * std::erfc(normal * -0.70710678118654752440); }

/// Discrete columns of single events and what follows from them; see `arrays.DrawnArrays`.
class Drawn {
 public:
  Drawn(const File& file, const Way& way)
      : way_(way), discrete_(file, "classifiers"), learned_(file, "drawn", way) {
    const auto sizes = file.sizes("drawn", 1);
    n_computed_ = sizes[0];
    const std::size_t q = discrete_.n_columns();
    column_ = file.get<std::int64_t>("drawn.column", q);
    value_ = file.get<double>("drawn.value", discrete_.first(q));
    missing_ = file.get<std::int64_t>("drawn.missing", q);
    gaps_ = file.get<std::int64_t>("drawn.gaps", q + 1);
    gap_ = file.get<std::int64_t>("drawn.gap");
    const auto within_row = [&](std::int64_t place) {
      return place >= -1 && place < static_cast<std::int64_t>(way.n_columns());
    };
    bool good = discrete_.d() == way.n_columns() && gaps_[0] == 0 &&
                static_cast<std::uint64_t>(gaps_[q]) <= gap_.size &&
                discrete_.n_known() == way.n_conditions() + learned_.size();
    for (std::size_t k = 0; k < q; ++k)
      good = good && within_row(column_[k]) && gaps_[k] <= gaps_[k + 1];
    for (std::size_t i = 0; i < gap_.size; ++i) good = good && gap_[i] >= 0 && within_row(gap_[i]);
    file.require(good, "drawn columns");
  }

  /// Working memory.
  struct Room {
    Discrete::Room discrete;
    Work<double> known, row, stack, uniform;
    Work<std::int64_t> codes;
  };

  std::size_t n() const { return discrete_.n_columns(); }
  const Discrete& discrete() const { return discrete_; }

  /// Completes an event (d) whose numeric columns are there, for conditions as they are and scaled
  /// (c), with normal numbers (q); `latent` is what `Way::restore` left there. Returns how many
  /// relations are undefined.
  std::size_t complete(double* x, const double* given, const double* scaled, const double* normal,
                       const double* latent, Room& room) const {
    const std::size_t d = way_.n_columns(), c = way_.n_conditions(), q = n();
    room.known.resize(c + learned_.size());
    std::copy_n(scaled, c, room.known.data());
    room.stack.resize(std::max(learned_.deepest(), way_.deepest()));
    learned_.compute(x, given, room.stack.data(), room.known.data() + c);
    for (std::size_t i = c; i < room.known.size(); ++i)
      if (!(std::abs(room.known[i]) < std::numeric_limits<float>::max()))
        room.known[i] = std::numeric_limits<double>::quiet_NaN();
    room.row.assign(x, x + d);
    room.uniform.resize(q);
    room.codes.resize(q);
    for (std::size_t k = 0; k < q; ++k) room.uniform[k] = uniform_of(normal[k]);
    discrete_.draw(room.row.data(), room.known.data(), room.uniform.data(), 1, room.codes.data(), 1,
                   room.discrete);
    for (std::size_t k = 0; k < q; ++k) {
      const std::size_t code = static_cast<std::size_t>(room.codes[k]);
      if (column_[k] >= 0) x[column_[k]] = value_[discrete_.first(k) + code];
      discrete_.enter(k, room.codes[k], x);
    }
    for (std::size_t k = 0; k < q; ++k)
      for (std::int64_t i = gaps_[k]; room.codes[k] == missing_[k] && i < gaps_[k + 1]; ++i)
        x[gap_.data[i]] = std::numeric_limits<double>::quiet_NaN();
    return way_.relate(n_computed_, x, given, latent, room.stack.data());
  }

 private:
  const Way& way_;
  Discrete discrete_;
  Expressions learned_;
  std::size_t n_computed_ = 0;
  Span<std::int64_t> column_, missing_, gaps_, gap_;
  Span<double> value_;
};

// ---------------------------------------------------------------------------------------------
// The solver

/// What the solver does and what trees see; see `arrays.SolverArrays`.
struct Walk {
  Span<double> scale, weight, to_columns;
  Span<std::int64_t> terms, term, slot, step, forests;
  Span<std::uint8_t> silent;
  bool latent = false, end_point = false, components = false;

  Walk() = default;

  Walk(const File& file, std::size_t m, std::size_t n_slots, std::size_t n_forests) {
    step = file.get<std::int64_t>("walk.step");
    scale = file.get<double>("walk.scale", step.size + 1);
    terms = file.get<std::int64_t>("walk.terms", step.size + 2);
    term = file.get<std::int64_t>("walk.term");
    weight = file.get<double>("walk.weight", term.size);
    slot = file.get<std::int64_t>("walk.slot", step.size);
    forests = file.get<std::int64_t>("walk.forests");
    to_columns = file.get<double>("walk.to_columns");
    silent = file.get<std::uint8_t>("walk.silent", forests.size - 1);
    const auto rising = [&](const Span<std::int64_t>& all, std::size_t most) {
      bool good = all.size > 0 && all[0] == 0;
      for (std::size_t i = 1; i < all.size; ++i) good = good && all[i - 1] <= all[i];
      return good && static_cast<std::uint64_t>(all[all.size - 1]) <= most;
    };
    const auto below = [](const Span<std::int64_t>& all, std::size_t most) {
      return std::all_of(all.data, all.data + all.size, [&](std::int64_t i) {
        return i >= 0 && static_cast<std::uint64_t>(i) < most;
      });
    };
    file.require(forests.size > 1 && n_slots <= step.size && rising(forests, n_forests) &&
                     rising(terms, term.size) &&
                     below(term, n_slots) && below(slot, n_slots) &&
                     below(step, forests.size - 1) && to_columns.size % m == 0,
                 "steps");
  }

  std::size_t n_steps() const { return forests.size - 1; }
};

/// All that carries points from noise to data.
struct Steps {
  std::size_t m = 0, n_cond = 0, n_slots = 0;
  Trees trees;
  Walk walk;
  Form form;
  Mixture mixture;
  bool has_mixture = false;

  Steps() = default;

  explicit Steps(const File& file) : trees(file, "trees") {
    const auto sizes = file.sizes("walk", 6);
    m = sizes[0];
    n_cond = sizes[1];
    n_slots = sizes[2];
    file.require(m > 0 && n_slots > 0 && trees.n_outputs() == m, "sizes");
    walk = Walk(file, m, n_slots, trees.n_forests());
    walk.latent = sizes[3] != 0;
    walk.end_point = sizes[4] != 0;
    walk.components = sizes[5] != 0;
    form = Form(file, m, n_cond, walk.n_steps());
    file.require(form.kind != kNone || !(walk.end_point || walk.components), "closed forms");
    const std::size_t points = (walk.latent ? 1 : 0) + (walk.end_point ? 1 : 0);
    file.require(points * m + walk.to_columns.size / m +
                         (walk.components ? form.n_components : 0) + n_cond ==
                     trees.n_inputs(),
                 "inputs of trees");
    has_mixture = file.has("mixture.log_weights") && form.kind != kNone;
    if (has_mixture) mixture = Mixture(file, form, m, n_cond, walk.n_steps());
  }

  /// Whether a closed form belongs to these steps.
  bool takes(const Form& other) const {
    return other.kind == form.kind && other.n_components == form.n_components &&
           other.n_used == form.n_used && other.n_out == form.n_out;
  }
};

/// Carries points from noise to data; has the working memory of one thread.
class Walker {
 public:
  explicit Walker(const Steps& steps) : steps_(steps) {
    fit(1);
  }
  virtual ~Walker() = default;

  /// Carries n points x (n, m) in place; the known ones of the conditions (n, c) are told by the
  /// closed form `given`, or are those that are not NaN.
  void run(double* x, const double* cond, std::size_t n, const Form* given = nullptr) {
    const std::size_t n_cond = steps_.n_cond;
    for (std::size_t low = 0, high; low < n; low = high) {
      high = low + 1;
      while (high < n && high - low < kBlock &&
             same_pattern(cond + low * n_cond, cond + high * n_cond))
        ++high;
      fit(high - low);
      bool gaps = false;
      for (std::size_t j = 0; j < n_cond; ++j) gaps = gaps || std::isnan(cond[low * n_cond + j]);
      const Form& form = given != nullptr ? *given : form_of(cond + low * n_cond, gaps);
      if (form.kind != kNone) room_.fit(form, high - low);
      walk(form, x + low * steps_.m, cond + low * n_cond, high - low);
    }
  }

 protected:
  /// Is called with a form that this walker made.
  virtual void prepare(Form&) const {}

  /// Carries rows with the same known conditions.
  virtual void walk(const Form& form, double* x, const double* cond, std::size_t n) {
    const Walk& walk = steps_.walk;
    const Trees& trees = steps_.trees;
    const std::size_t m = steps_.m, n_cond = steps_.n_cond;
    for (std::size_t e = 0; e < walk.step.size; ++e) {
      move(e, x, n);
      const std::size_t s = static_cast<std::size_t>(walk.step[e]);
      double* velocity = slot(walk.slot[e]);
      for (std::size_t low = 0; low < n; low += kRows) {
        const std::size_t rows = std::min(kRows, n - low);
        const double* points = x + low * m;
        if (form.kind != kNone) ClosedForm(form, s, room_)(points, cond + low * n_cond, n_cond, rows);
        closed_velocity(form, s, points, rows, velocity + low * m);
        fill_inputs(form, s, points, cond + low * n_cond, rows,
                    inputs_.data() + low * trees.n_inputs());
      }
      trees.sum(static_cast<std::size_t>(walk.forests[s]),
                static_cast<std::size_t>(walk.forests[s + 1]), inputs_.data(), n,
                trees.n_inputs(), total_.data(), row_);
      for (std::size_t r = 0; r < n; ++r)
        for (std::size_t j = 0; j < m; ++j)
          velocity[r * m + j] += static_cast<double>(total_[r * trees.across() + j]);
    }
    move(walk.step.size, x, n);
  }

 private:
  void fit(std::size_t rows) {
    if (rows <= rows_) return;
    rows_ = rows;
    slots_.resize(steps_.n_slots * rows * steps_.m);
    inputs_.resize(rows * std::max<std::size_t>(steps_.trees.n_inputs(), 1));
    total_.resize(rows * steps_.trees.across());
  }

  bool same_pattern(const double* a, const double* b) const {
    for (std::size_t j = 0; j < steps_.n_cond; ++j)
      if (std::isnan(a[j]) != std::isnan(b[j])) return false;
    return true;
  }

  const Form& form_of(const double* cond, bool gaps) {
    if (!gaps || steps_.form.kind == kNone) return steps_.form;
    if (!steps_.has_mixture)
      throw ArgumentError("this model has no closed form for unknown conditions; pass all");
    std::vector<std::size_t> observed;
    for (std::size_t j = 0; j < steps_.n_cond; ++j)
      if (!std::isnan(cond[j])) observed.push_back(j);
    auto found = forms_.find(observed);
    if (found == forms_.end()) {
      if (forms_.size() >= kMostPatterns) forms_.erase(forms_.begin());
      FormBuilder builder(steps_.mixture, steps_.form, observed);
      found = forms_.emplace(observed, builder.build()).first;
      prepare(*found->second);
    }
    return *found->second;
  }

  double* slot(std::int64_t number) {
    return slots_.data() + static_cast<std::size_t>(number) * rows_ * steps_.m;
  }

  void closed_velocity(const Form& form, std::size_t s, const double* x, std::size_t n,
                       double* velocity) const {
    const std::size_t m = steps_.m;
    if (form.kind == kNone) {
      std::fill(velocity, velocity + n * m, 0.0);
      return;
    }
    const double turn = form.turn[s * 4], pull = form.turn[s * 4 + 1];
    for (std::size_t r = 0; r < n; ++r) {
      const double* out = room_.out.data() + r * form.n_out;
      for (std::size_t j = 0; j < m; ++j)
        velocity[r * m + j] = form.n_used == m ? turn * out[j] + pull * x[r * m + j] : out[j];
    }
  }

  /// Goes to the point of evaluation `e`: a multiple of the last one plus some velocities.
  void move(std::size_t e, double* x, std::size_t n) {
    const Walk& walk = steps_.walk;
    const std::size_t size = n * steps_.m;
    const double scale = walk.scale[e];
    if (scale != 1.0)
      for (std::size_t i = 0; i < size; ++i) x[i] *= scale;
    const std::size_t end = static_cast<std::size_t>(walk.terms[e + 1]);
    for (std::size_t q = static_cast<std::size_t>(walk.terms[e]); q < end; ++q)
      add_times(x, walk.weight[q], slot(walk.term[q]), size);
  }

  /// Fills `to` (n, p) with what the trees of a step see.
  void fill_inputs(const Form& form, std::size_t s, const double* x, const double* cond,
                   std::size_t n, float* to) const {
    const Walk& walk = steps_.walk;
    const std::size_t m = steps_.m, n_cond = steps_.n_cond;
    const std::size_t n_to = walk.to_columns.size / m, k = form.n_components;
    const bool silent = walk.silent[s] != 0;
    for (std::size_t r = 0; r < n; ++r) {
      const double* point = x + r * m;
      const double* end = room_.out.data() + r * form.n_out + (form.n_used == m ? 0 : m);
      if (walk.latent)
        for (std::size_t j = 0; j < m; ++j) *to++ = static_cast<float>(point[j]);
      for (std::size_t q = 0; q < n_to; ++q) {
        double value = 0.0;
        for (std::size_t j = 0; j < m; ++j) value += point[j] * walk.to_columns[q * m + j];
        *to++ = static_cast<float>(value);
      }
      if (walk.end_point)
        for (std::size_t j = 0; j < m; ++j) *to++ = silent ? 0.0f : static_cast<float>(end[j]);
      if (walk.components)
        for (std::size_t j = 0; j < k; ++j)
          *to++ = silent ? 0.0f : static_cast<float>(room_.weights[r * k + j]);
      for (std::size_t j = 0; j < n_cond; ++j) *to++ = static_cast<float>(cond[r * n_cond + j]);
    }
  }

  const Steps& steps_;
  std::size_t rows_ = 0;
  Work<double> slots_;
  Work<float> inputs_, total_;
  TreeRow row_;
  FormRoom room_;
  std::map<std::vector<std::size_t>, std::unique_ptr<Form>> forms_;
};

}  // namespace detail
}  // namespace flowbdt

// With FLOWBDT_IN_LANES, and lanes*.cpp among the sources of the program, walks go through SIMD
// lanes, see CMakeLists.txt of the example.
#ifdef FLOWBDT_IN_LANES
#include "lanes_walker.hpp"
#endif

namespace flowbdt {

// ---------------------------------------------------------------------------------------------

/// Numbers in which events are carried through the steps. Single ones take half of the time and move
/// a column by some 1e-6 of its spread; they need the kernels, see FLOWBDT_IN_LANES.
enum class Precision { kDouble, kSingle };

/// A trained flow as it was exported. Never changes; share it between threads.
class Model {
 public:
  /// Reads a file. Throws FileError with what is wrong and what to do, ArgumentError for single
  /// precision without kernels.
  explicit Model(const std::string& path, Precision precision = Precision::kDouble)
      : Model(detail::File(path), precision) {}

  /// Takes the bytes of a file that stay in memory, see `detail::File`.
  Model(const void* bytes, std::size_t size, const std::string& name, const std::string& advice)
      : Model(detail::File(bytes, size, name, advice), Precision::kDouble) {}

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  std::size_t n_columns() const { return columns_.size(); }
  std::size_t n_conditions() const { return conditions_.size(); }
  /// Standard normal numbers that an event is made of.
  std::size_t n_latent() const { return steps_.m + n_beside(); }
  /// Columns that classifiers draw, with those of these numbers that come after the flow's.
  std::size_t n_drawn() const { return drawn_ ? drawn_->n() : 0; }
  /// Whether an event is turned about the beam, by the angle of the vector of the last two numbers.
  bool turns() const { return way_.turns(); }
  /// Whether the model is a single classifier, see `Generator::probabilities`.
  bool is_classifier() const { return steps_.m == 0 && n_drawn() == 1 && !rejects(); }
  /// The values that a classifier knows.
  std::size_t n_values() const { return is_classifier() ? drawn_->discrete().n_values(0) : 0; }
  /// Names of the columns of an event, in their order.
  const std::vector<std::string>& columns() const { return columns_; }
  /// Units of the columns, empty where they have none.
  const std::vector<std::string>& units() const { return units_; }
  /// Types of the columns at training, as numpy names them.
  const std::vector<std::string>& types() const { return types_; }
  const std::vector<std::string>& conditions() const { return conditions_; }
  /// Digest of the training run.
  const std::string& digest() const { return about_[1]; }
  /// Whether trees reject events, and the share that is kept; 1 without.
  bool rejects() const { return ratio_.n_forests() > 0; }
  double acceptance() const { return acceptance_; }
  /// After so many attempts an event is kept whatever its acceptance, if it meets the cuts.
  std::size_t most_attempts() const { return most_attempts_; }
  /// Cuts that every event meets.
  std::size_t n_cuts() const { return n_cuts_; }

  /// Returns how many of `cond` (n_conditions) lie outside of the training range by more than a
  /// tenth of its width: trees are constant there, and know nothing of such events. Categories,
  /// unknown conditions, and those of models without ranges do not count.
  std::size_t outside(const double* cond) const {
    std::size_t count = 0;
    for (std::size_t j = 0; j < low_.size; ++j) count += cond[j] < low_[j] || cond[j] > high_[j];
    return count;
  }

  /// Returns the texts of a column or condition that holds categories: code i is text i. Empty if
  /// it holds numbers.
  std::vector<std::string> categories(const std::string& name) const {
    const auto found = categories_.find(name);
    return found == categories_.end() ? std::vector<std::string>{} : found->second;
  }

  /// Returns the number that stands for a text. Throws ArgumentError if there is no such text.
  double code(const std::string& name, const std::string& text) const {
    const std::vector<std::string> all = categories(name);
    const auto found = std::find(all.begin(), all.end(), text);
    if (found == all.end())
      throw ArgumentError("'" + name + "' has no category '" + text + "'; it has " + listed(all));
    return static_cast<double>(found - all.begin());
  }

 private:
  friend class Generator;

  /// Attempts after which none is believed to meet the cuts.
  static constexpr std::size_t kMostDraws = 2000;

  /// Whether no computed column of an event before its turn is far beyond its training range; of an
  /// event that is not, the acceptance is 0.
  bool is_near(const double* event) const {
    const std::size_t d = n_columns();
    for (std::size_t j = 0; j < reach_.size / 2; ++j)
      if (event[j] < reach_[j] || event[j] > reach_[d + j]) return false;
    return true;
  }

  /// Numbers that an event is made of beside latent ones.
  std::size_t n_beside() const { return n_drawn() + (turns() ? 2 : 0); }

  Model(detail::File&& file, Precision precision) : file_(std::move(file)) {
    way_ = detail::Way(file_);
    if (way_.n_latent() > 0) {
      steps_ = detail::Steps(file_);
      file_.require(way_.n_latent() == steps_.m && way_.n_conditions() == steps_.n_cond, "sizes");
    }
    if (file_.has("drawn.sizes")) drawn_ = std::make_unique<detail::Drawn>(file_, way_);
    columns_ = file_.texts("text.columns", way_.n_columns());
    units_ = file_.texts("text.units", n_columns());
    types_ = file_.texts("text.types", n_columns());
    conditions_ = file_.texts("text.conditions", way_.n_conditions());
    about_ = file_.texts("text.about", 3);
    read_categories();
    const std::size_t n_inputs = n_columns() + n_conditions();
    centre_ = file_.get<double>("scaling.centre", n_inputs);
    scale_ = file_.get<double>("scaling.scale", n_inputs);
    for (std::size_t j = 0; j < scale_.size; ++j)
      file_.require(std::isfinite(centre_[j]) && scale_[j] > 0, "scaling of columns");
    if (file_.has("limits.low")) {
      low_ = file_.get<double>("limits.low", n_conditions());
      high_ = file_.get<double>("limits.high", n_conditions());
    }
    if (file_.has("reach.ends")) {
      reach_ = file_.get<double>("reach.ends", 2 * n_columns());
      most_attempts_ = attempts(file_.get<double>("reach.attempts", 1)[0]);
    }
    if (file_.has("ratio.numbers")) {
      ratio_ = detail::Trees(file_, "ratio");
      if (file_.has("seen.sizes")) seen_ = detail::Expressions(file_, "seen", way_);
      const std::size_t all = n_inputs + seen_.size();
      file_.require(ratio_.n_inputs() == all && ratio_.n_outputs() == 1, "sizes");
      const auto numbers = file_.get<double>("ratio.numbers", 3);
      ceiling_ = numbers[0];
      acceptance_ = numbers[1];
      most_attempts_ = attempts(numbers[2]);
    }
    if (file_.has("cuts.sizes")) {
      n_cuts_ = file_.sizes("cuts", 1)[0];
      cuts_ = detail::Expressions(file_, "cuts", way_);
      file_.require(n_cuts_ <= cuts_.size(), "cuts");
    }
    if (!quicken(precision == Precision::kSingle) && precision == Precision::kSingle)
      throw ArgumentError("single precision needs the kernels: define FLOWBDT_IN_LANES and compile"
                          " lanes*.cpp with the program, or take double precision");
  }

#ifdef FLOWBDT_IN_LANES
  /// Finds kernels for this processor; returns whether there are some.
  bool quicken(bool single) {
    const lanes::Kernels* found = lanes::kernels(nullptr);
    if (found == nullptr) return false;
    if (steps_.m > 0 && single)
      in_lanes_ = std::make_unique<lanes::LaneStepsOf<float>>(steps_, *found);
    else if (steps_.m > 0)
      in_lanes_ = std::make_unique<lanes::LaneStepsOf<double>>(steps_, *found);
    if (rejects()) ratio_.faster = std::make_shared<lanes::TreeSums>(ratio_, *found);
    return true;
  }

  std::unique_ptr<detail::Walker> walker() const {
    return in_lanes_ ? in_lanes_->walker() : std::make_unique<detail::Walker>(steps_);
  }
#else
  bool quicken(bool) { return false; }

  std::unique_ptr<detail::Walker> walker() const {
    return std::make_unique<detail::Walker>(steps_);
  }
#endif

  std::size_t attempts(double number) const {
    file_.require(number >= 1.0 && number <= 1e6, "attempts");
    return static_cast<std::size_t>(number);
  }

  static std::string listed(const std::vector<std::string>& all) {
    std::string text;
    for (const std::string& one : all) text += (text.empty() ? "" : ", ") + one;
    return text.empty() ? "none" : text;
  }

  void read_categories() {
    const std::vector<std::string> all = file_.texts("text.categories");
    for (std::size_t i = 0; i + 1 < all.size();) {
      const std::size_t count =
          static_cast<std::size_t>(std::strtoull(all[i + 1].c_str(), nullptr, 10));
      file_.require(count <= all.size() - i - 2, "categories");
      auto& values = categories_[all[i]];
      for (std::size_t q = 0; q < count; ++q) values.push_back(all[i + 2 + q]);
      i += 2 + count;
    }
  }

  detail::File file_;
  std::size_t most_attempts_ = 1, n_cuts_ = 0;
  double ceiling_ = 1.0, acceptance_ = 1.0;
  detail::Span<double> centre_, scale_, low_, high_, reach_;
  std::vector<std::string> columns_, units_, types_, conditions_, about_;
  std::map<std::string, std::vector<std::string>> categories_;
  detail::Trees ratio_;
  detail::Expressions seen_, cuts_;  // of the latter the last ones are the conditions
  detail::Steps steps_;
  detail::Way way_;
  std::unique_ptr<const detail::Drawn> drawn_;
#ifdef FLOWBDT_IN_LANES
  std::unique_ptr<lanes::LaneSteps> in_lanes_;
#endif
};

/// Makes events. One for each thread; all may share a model.
class Generator {
 public:
  explicit Generator(std::shared_ptr<const Model> model)
      : model_(needed(std::move(model))), walker_(model_->walker()) {
    fit(1);
    latent_.resize(model_->way_.n_values() + 1);
    stack_.resize(std::max({model_->way_.deepest(), model_->seen_.deepest(),
                            model_->cuts_.deepest()}));
    derived_.resize(model_->seen_.size());
    cut_.resize(model_->cuts_.size());
    noise_.resize(model_->n_latent());
  }

  const Model& model() const { return *model_; }

  /// How often a relation between columns was undefined; its column then has an end of its
  /// training range.
  std::size_t undefined() const { return undefined_; }

  /// Returns event `number` of `seed` for some conditions, NaN where unknown: (n_columns) numbers
  /// in the units of the training, in memory that the next call overwrites.
  ///
  /// Throws ArgumentError for a wrong number of conditions or an infinite one.
  const std::vector<double>& one(const std::vector<double>& cond, std::uint64_t seed,
                                 std::uint64_t number) {
    event_.resize(model_->n_columns());
    one(cond.data(), cond.size(), seed, number, event_.data());
    return event_;
  }

  /// The same without any allocation: `out` has room for n_columns numbers.
  void one(const double* cond, std::size_t n_cond, std::uint64_t seed, std::uint64_t number,
           double* out) {
    check(cond, n_cond, 1);
    block(cond, 1, seed, number, out);
  }

  /// Fills `out` (n, n_columns), row by row, with the events `first` to `first + n` of `seed`.
  ///
  /// `cond` is (n, n_conditions), or null for a model without. The events are those that `one`
  /// gives, made faster.
  void many(std::size_t n, const double* cond, std::size_t n_cond, std::uint64_t seed,
            std::uint64_t first, double* out) {
    check(cond, n_cond, n);
    fit(std::min(n, detail::kBlock));
    for (std::size_t low = 0; low < n; low += detail::kBlock)
      block(cond + low * n_cond, std::min(detail::kBlock, n - low), seed, first + low,
            out + low * model_->n_columns());
  }

  /// Fills `out` with the event that given standard normal numbers (n_latent) become; returns the
  /// probability with which it is to be kept, 0 if it does not meet the cuts, 1 without either or
  /// where nobody `asks`.
  double from_noise(const double* noise, const double* cond, std::size_t n_cond, double* out,
                    bool asks = true) {
    check(cond, n_cond, 1);
    take(noise, 0);
    const double* known = scaled(cond, 1);
    walker_->run(x_.data(), known, 1);
    restore(0, cond, known, out);
    const bool is_near = asks && model_->is_near(out), weighs = is_near && model_->rejects();
    if (weighs) {
      see(0, cond, known, out);
      weigh(1);
    }
    turn(0, cond, out);
    if (!asks) return 1.0;
    if (!is_near || !meets_cuts(out, cond)) return 0.0;
    return weighs ? acceptance(0) : 1.0;
  }

  /// Returns the probabilities (n_values) of the values of a model that is a single classifier, in
  /// memory that the next call overwrites.
  const double* probabilities(const double* cond, std::size_t n_cond) {
    if (!model_->is_classifier()) throw ArgumentError("this model is no single classifier");
    check(cond, n_cond, 1);
    model_->drawn_->discrete().probabilities(scaled(cond, 1), drawn_room_.discrete);
    return drawn_room_.discrete.weights.data();
  }

  /// Fills `out` (n_latent) with the normal numbers that attempt 0, 1, ... of an event begins with.
  void noise(std::uint64_t seed, std::uint64_t number, std::uint64_t attempt, double* out) const {
    detail::normal(seed, number, attempt, out, model_->n_latent());
  }

  /// Returns the number in [0, 1) that must be below an attempt's acceptance for its event to be
  /// kept.
  static double uniform(std::uint64_t seed, std::uint64_t number, std::uint64_t attempt) {
    return detail::uniform(seed, number, attempt);
  }

 private:
  static std::shared_ptr<const Model> needed(std::shared_ptr<const Model> model) {
    if (!model) throw ArgumentError("a generator needs a model, got none");
    return model;
  }

  void fit(std::size_t rows) {
    if (rows <= left_.size()) return;
    left_.resize(rows);
    x_.resize(rows * model_->steps_.m);
    normal_.resize(rows * model_->n_beside());
    given_.resize(rows * model_->n_conditions());
    scaled_.resize(rows * model_->n_conditions());
    if (!model_->rejects()) return;
    seen_.resize(rows * model_->ratio_.n_inputs());
    ratio_.resize(rows * model_->ratio_.across());
  }

  void check(const double* cond, std::size_t n_cond, std::size_t n) const {
    if (n_cond != model_->n_conditions())
      throw ArgumentError("this model has " + std::to_string(model_->n_conditions()) +
                          " condition(s) (" + Model::listed(model_->conditions()) + "), got " +
                          std::to_string(n_cond) + ": pass one number each, NaN where unknown");
    if (n_cond > 0 && cond == nullptr) throw ArgumentError("conditions are needed, got none");
    for (std::size_t i = 0; i < n * n_cond; ++i)
      if (std::isinf(cond[i]))
        throw ArgumentError("condition '" + model_->conditions()[i % n_cond] +
                            "' is infinite; pass a number, or NaN where it is unknown");
  }

  /// Returns n rows of conditions as training had them: centred, scaled, within float32.
  const double* scaled(const double* cond, std::size_t n) {
    const std::size_t d = model_->n_columns(), n_cond = model_->n_conditions();
    for (std::size_t i = 0; i < n * n_cond; ++i)
      scaled_[i] = scaled_value(cond[i], d + i % n_cond);
    return scaled_.data();
  }

  double scaled_value(double value, std::size_t j) const {
    return detail::within_single((value - model_->centre_[j]) / model_->scale_[j]);
  }

  /// Makes at most `kBlock` events: all of them, then those anew that were rejected.
  void block(const double* given, std::size_t n, std::uint64_t seed, std::uint64_t first,
             double* out) {
    const std::size_t n_cond = model_->n_conditions();
    const double* cond = scaled(given, n);
    detail::Work<std::size_t>& left = left_;
    for (std::size_t i = 0; i < n; ++i) left[i] = i;
    for (std::size_t attempt = 0; n > 0; ++attempt) {
      for (std::size_t i = 0; i < n; ++i) {
        noise(seed, first + left[i], attempt, noise_.data());
        take(noise_.data(), i);
        for (std::size_t j = 0; j < n_cond; ++j)
          given_[i * n_cond + j] = cond[left[i] * n_cond + j];
      }
      walker_->run(x_.data(), given_.data(), n);
      const bool asks = attempt + 1 < model_->most_attempts_, weighs = asks && model_->rejects();
      for (std::size_t i = 0; i < n; ++i) {
        double* event = out + left[i] * model_->n_columns();
        const double* known = given_.data() + i * n_cond;
        restore(i, given + left[i] * n_cond, known, event);
        if (weighs) see(i, given + left[i] * n_cond, known, event);
      }
      if (weighs) weigh(n);
      std::size_t rejected = 0;
      for (std::size_t i = 0; i < n; ++i) {
        double* event = out + left[i] * model_->n_columns();
        bool kept = !asks || (model_->is_near(event) &&
                              (!weighs || uniform(seed, first + left[i], attempt) < acceptance(i)));
        if (kept) {
          turn(i, given + left[i] * n_cond, event);
          kept = meets_cuts(event, given + left[i] * n_cond);
        }
        if (!kept) left[rejected++] = left[i];
      }
      n = rejected;
      if (n > 0 && attempt + 1 == std::max(Model::kMostDraws, model_->most_attempts_))
        throw EventError("an event meets the cuts of this model in none of " +
                         std::to_string(attempt + 1) +
                         " draws: at its conditions the model hardly has such events");
    }
  }

  /// Begins an event with noise (n_latent).
  void take(const double* noise, std::size_t row) {
    const std::size_t m = model_->steps_.m, q = model_->n_beside();
    std::copy_n(noise, m, x_.data() + row * m);
    std::copy_n(noise + m, q, normal_.data() + row * q);
  }

  void restore(std::size_t row, const double* given, const double* known, double* out) {
    const std::size_t m = model_->steps_.m;
    const double* z = x_.data() + row * m;
    for (std::size_t j = 0; j < m; ++j)
      if (!std::isfinite(z[j]))
        throw EventError("an event is not finite: its noise or its conditions are far outside of"
                         " what the model was trained on");
    const std::size_t undefined = model_->way_.restore(z, given, out, latent_.data(), stack_.data());
    undefined_ += model_->drawn_ == nullptr
                      ? undefined
                      : model_->drawn_->complete(out, given, known,
                                                 normal_.data() + row * model_->n_beside(),
                                                 latent_.data(), drawn_room_);
  }

  /// Turns an event that was restored, where events turn.
  void turn(std::size_t row, const double* given, double* event) {
    if (!model_->turns()) return;
    const double* vector = normal_.data() + (row + 1) * model_->n_beside() - 2;
    undefined_ += model_->way_.turn(std::atan2(vector[1], vector[0]), event, given, latent_.data(),
                                    stack_.data());
  }

  bool meets_cuts(const double* event, const double* given) {
    model_->cuts_.compute(event, given, stack_.data(), cut_.data());
    return std::all_of(cut_.end() - static_cast<std::ptrdiff_t>(model_->n_cuts_), cut_.end(),
                       [](double holds) { return holds != 0.0; });
  }

  /// Notes what the ratio sees of an event: conditions as they are, and scaled.
  void see(std::size_t row, const double* given, const double* known, const double* event) {
    const std::size_t d = model_->n_columns(), n_cond = model_->n_conditions();
    float* seen = seen_.data() + row * model_->ratio_.n_inputs();
    for (std::size_t j = 0; j < d; ++j) *seen++ = static_cast<float>(scaled_value(event[j], j));
    for (std::size_t j = 0; j < n_cond; ++j) *seen++ = static_cast<float>(known[j]);
    model_->seen_.compute(event, given, stack_.data(), derived_.data());
    for (const double value : derived_) *seen++ = static_cast<float>(detail::within_single(value));
  }

  /// Computes the ratios of n events.
  void weigh(std::size_t n) {
    const detail::Trees& trees = model_->ratio_;
    const std::size_t across = trees.n_inputs();
    trees.sum(0, trees.n_forests(), seen_.data(), n, across, ratio_.data(), row_);
  }

  double acceptance(std::size_t row) const {
    return detail::acceptance(ratio_[row * model_->ratio_.across()], model_->ceiling_);
  }

  std::shared_ptr<const Model> model_;
  std::unique_ptr<detail::Walker> walker_;
  std::vector<double> event_;
  detail::Work<std::size_t> left_;
  detail::Work<double> noise_, x_, normal_, given_, scaled_, latent_, stack_, derived_, cut_;
  detail::Drawn::Room drawn_room_;
  detail::Work<float> seen_, ratio_;
  detail::TreeRow row_;
  std::size_t undefined_ = 0;
};

}  // namespace flowbdt

#endif  // FLOWBDT_HPP
