// Arithmetic on sizes that says when it does not fit in 64 bits.
#pragma once

#include <cstdint>
#include <optional>

namespace samples {

class Checked {
 public:
  constexpr Checked(std::uint64_t value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  std::optional<std::uint64_t> value() const {
    return fits_ ? std::optional<std::uint64_t>(value_) : std::nullopt;
  }

  friend Checked operator+(Checked a, Checked b) {
    Checked out(0);
    out.fits_ = !__builtin_add_overflow(a.value_, b.value_, &out.value_) && a.fits_ && b.fits_;
    return out;
  }
  friend Checked operator*(Checked a, Checked b) {
    Checked out(0);
    out.fits_ = !__builtin_mul_overflow(a.value_, b.value_, &out.value_) && a.fits_ && b.fits_;
    return out;
  }
  Checked rounded_up_to(std::uint64_t unit) const {
    Checked out = *this + (unit - 1);
    out.value_ -= out.value_ % unit;
    return out;
  }

 private:
  std::uint64_t value_;
  bool fits_ = true;
};

}  // namespace samples
