// Sequitur (Nevill-Manning and Witten, "Identifying Hierarchical Structure in Sequences: A linear-time algorithm",
// JAIR 7, 1997) over integer symbols.
//
// The grammar under construction is a set of circular, doubly linked lists, one a rule, each closed by a guard node.
// Nodes live in one pool and are named by 32-bit indices, so that nothing is allocated symbol by symbol. Two
// properties hold whenever `append` returns:
//   digram uniqueness: no pair of adjacent symbols occurs twice in the bodies, unless the two overlap (aaa);
//   rule utility: every rule but the root is used at least twice.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

using Index = std::int32_t;
constexpr Index kNone = -1;
constexpr Index kRoot = 0;

// A node's value is a terminal (>= 0), the use of rule r (-r), the guard of rule r (kGuard - r), or kFree.
constexpr Index kGuard = -(1 << 30);
constexpr Index kFree = std::numeric_limits<Index>::min();
constexpr std::size_t kMostSymbols = std::size_t{1} << 30;

struct Node {
  Index value, previous, next;
};

struct Rule {
  Index guard, uses;
};

// The digrams of the grammar by the node that begins each: open addressing with linear probing, at most half full.
// Keys aren't stored; 32 bits of their hash are, which also give an entry's home when a removal moves it up.
class DigramTable {
 public:
  explicit DigramTable(const std::vector<Node>& nodes) : nodes_(nodes), entries_(std::size_t{1} << kFirstBits) {}

  // The node registered for the digram that begins at `node`; when there is none, `node` is registered.
  Index find_or_insert(Index node) {
    if (2 * (used_ + 1) > entries_.size()) grow();
    const std::uint32_t hash = hash_of(node);
    const std::size_t slot = find(node, hash);
    if (entries_[slot].node == kNone) {
      entries_[slot] = {hash, node};
      ++used_;
    }
    return entries_[slot].node;
  }

  // Registers `other`, which begins the same digram, in place of `node`.
  void move(Index node, Index other) { entries_[find(node, hash_of(node))].node = other; }

  // Forgets the digram that begins at `node`. False when another node is registered for it.
  bool remove(Index node) {
    std::size_t hole = find(node, hash_of(node));
    if (entries_[hole].node != node) return false;
    const std::size_t mask = entries_.size() - 1;
    for (std::size_t slot = next(hole); entries_[slot].node != kNone; slot = next(slot)) {
      const std::size_t from_home = (slot - home(entries_[slot].hash)) & mask;
      if (from_home >= ((slot - hole) & mask)) {
        entries_[hole] = entries_[slot];
        hole = slot;
      }
    }
    entries_[hole].node = kNone;
    --used_;
    return true;
  }

 private:
  static constexpr unsigned kFirstBits = 10;
  struct Entry {
    std::uint32_t hash = 0;
    Index node = kNone;
  };

  std::uint32_t hash_of(Index node) const {
    const Node& first = nodes_[node];
    std::uint64_t key = (std::uint64_t{static_cast<std::uint32_t>(first.value)} << 32) |
                        static_cast<std::uint32_t>(nodes_[first.next].value);
    key = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15u;
    key = (key ^ (key >> 29)) * 0xBF58476D1CE4E5B9u;
    return static_cast<std::uint32_t>(key >> 32);
  }

  bool same_digram(Index a, Index b) const {
    return nodes_[a].value == nodes_[b].value && nodes_[nodes_[a].next].value == nodes_[nodes_[b].next].value;
  }

  std::size_t home(std::uint32_t hash) const { return hash >> (32 - bits_); }
  std::size_t next(std::size_t slot) const { return (slot + 1) & (entries_.size() - 1); }

  std::size_t find(Index node, std::uint32_t hash) const {
    std::size_t slot = home(hash);
    while (entries_[slot].node != kNone &&
           (entries_[slot].hash != hash || !same_digram(entries_[slot].node, node)))
      slot = next(slot);
    return slot;
  }

  void grow() {
    ++bits_;
    std::vector<Entry> entries(std::size_t{1} << bits_);
    entries_.swap(entries);
    for (const Entry& entry : entries) {
      if (entry.node == kNone) continue;
      std::size_t slot = home(entry.hash);
      while (entries_[slot].node != kNone) slot = next(slot);
      entries_[slot] = entry;
    }
  }

  const std::vector<Node>& nodes_;
  std::vector<Entry> entries_;
  std::size_t used_ = 0;
  unsigned bits_ = kFirstBits;
};

class Sequitur {
 public:
  Sequitur() : digrams_(nodes_) { new_rule(); }
  Sequitur(const Sequitur&) = delete;
  Sequitur& operator=(const Sequitur&) = delete;

  void append(Index terminal) {
    const Index guard = rules_[kRoot].guard;
    const Index last = nodes_[guard].previous;
    const Index node = new_node(terminal);
    link(last, node);
    link(node, guard);
    check(last);
    while (!unchecked_.empty()) {
      const Index candidate = unchecked_.back();
      unchecked_.pop_back();
      check(candidate);
    }
  }

  // All bodies one after the other, and where each begins; rules are numbered by first use, from the root on.
  std::pair<std::vector<Index>, std::vector<std::int64_t>> grammar() const {
    std::vector<Index> bodies, order{kRoot}, number(rules_.size(), 0);
    std::vector<std::int64_t> starts;
    for (std::size_t i = 0; i < order.size(); ++i) {
      starts.push_back(static_cast<std::int64_t>(bodies.size()));
      const Index guard = rules_[order[i]].guard;
      for (Index n = nodes_[guard].next; n != guard; n = nodes_[n].next) {
        const Index value = nodes_[n].value;
        if (value < 0 && number[-value] == 0) {
          number[-value] = static_cast<Index>(order.size());
          order.push_back(-value);
        }
        bodies.push_back(value < 0 ? -number[-value] : value);
      }
    }
    starts.push_back(static_cast<std::int64_t>(bodies.size()));
    return {std::move(bodies), std::move(starts)};
  }

 private:
  bool is_symbol(Index node) const { return nodes_[node].value > kGuard; }
  bool is_rule(Index node) const { return nodes_[node].value < 0; }
  bool is_digram(Index node) const { return is_symbol(node) && is_symbol(nodes_[node].next); }

  void link(Index left, Index right) {
    nodes_[left].next = right;
    nodes_[right].previous = left;
  }

  Index new_node(Index value) {
    if (free_nodes_.empty()) {
      nodes_.push_back({value, kNone, kNone});
      return static_cast<Index>(nodes_.size() - 1);
    }
    const Index node = free_nodes_.back();
    free_nodes_.pop_back();
    nodes_[node].value = value;
    return node;
  }

  void free_node(Index node) {
    nodes_[node].value = kFree;
    free_nodes_.push_back(node);
  }

  Index new_rule() {
    Index rule = static_cast<Index>(rules_.size());
    if (free_rules_.empty()) {
      rules_.push_back({kNone, 0});
    } else {
      rule = free_rules_.back();
      free_rules_.pop_back();
    }
    const Index guard = new_node(kGuard - rule);
    rules_[rule] = {guard, 0};
    link(guard, guard);
    return rule;
  }

  // Enforces digram uniqueness for the digram that begins at `node`. Harmless when it has gone meanwhile.
  void check(Index node) {
    if (!is_digram(node)) return;
    const Index other = digrams_.find_or_insert(node);
    if (other != node && nodes_[other].next != node && nodes_[node].next != other) merge(other, node);
  }

  // Both nodes begin the same digram, `first` being the registered one: both become uses of one rule.
  void merge(Index first, Index second) {
    Index rule = rule_of_whole_body(first);
    if (rule == kNone) {
      rule = new_rule_for(first);
      replace(first, rule);
    }
    replace(second, rule);
    const Index head = nodes_[rules_[rule].guard].next;
    if (is_rule(head) && rules_[-nodes_[head].value].uses == 1) inline_only_use(head);
  }

  // The rule whose body is the digram that begins at `node` and nothing else, or kNone.
  Index rule_of_whole_body(Index node) const {
    const Index guard = nodes_[node].previous;
    if (is_symbol(guard) || nodes_[nodes_[node].next].next != guard) return kNone;
    return kGuard - nodes_[guard].value;
  }

  Index new_rule_for(Index digram) {
    const Index left_value = nodes_[digram].value, right_value = nodes_[nodes_[digram].next].value;
    const Index rule = new_rule();
    const Index left = new_node(left_value), right = new_node(right_value);
    link(rules_[rule].guard, left);
    link(left, right);
    link(right, rules_[rule].guard);
    if (left_value < 0) ++rules_[-left_value].uses;
    if (right_value < 0) ++rules_[-right_value].uses;
    digrams_.move(digram, left);
    return rule;
  }

  // Puts a use of `rule` in the place of the digram that begins at `first`.
  void replace(Index first, Index rule) {
    const Index second = nodes_[first].next;
    const Index left = nodes_[first].previous, right = nodes_[second].next;
    forget(left);
    forget(second);
    for (const Index node : {first, second}) {
      if (is_rule(node)) --rules_[-nodes_[node].value].uses;
      free_node(node);
    }
    const Index use = new_node(-rule);
    ++rules_[rule].uses;
    link(left, use);
    link(use, right);
    unchecked_.push_back(use);
    unchecked_.push_back(left);
  }

  // Rule utility: puts the body of a rule in the place of its only use.
  void inline_only_use(Index use) {
    const Index rule = -nodes_[use].value, guard = rules_[rule].guard;
    const Index left = nodes_[use].previous, right = nodes_[use].next;
    forget(left);
    forget(use);
    const Index head = nodes_[guard].next, tail = nodes_[guard].previous;
    link(left, head);
    link(tail, right);
    free_node(use);
    free_node(guard);
    free_rules_.push_back(rule);
    unchecked_.push_back(tail);
    unchecked_.push_back(left);
  }

  // Takes the digram that begins at `node` out of the table, before it is broken up. In a run such as aaa only one
  // of the overlapping digrams is registered: the one that remains has to be looked at again.
  void forget(Index node) {
    if (!is_digram(node) || !digrams_.remove(node)) return;
    const Node& first = nodes_[node];
    const Node& second = nodes_[first.next];
    if (first.value == second.value && nodes_[second.next].value == first.value) unchecked_.push_back(first.next);
  }

  std::vector<Node> nodes_;
  std::vector<Rule> rules_;
  std::vector<Index> free_nodes_, free_rules_, unchecked_;
  DigramTable digrams_;
};

namespace nb = nanobind;

template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> to_numpy(std::vector<T>&& values) {
  auto* owned = new std::vector<T>(std::move(values));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return {owned->data(), {owned->size()}, owner};
}

using Symbols = nb::ndarray<const Index, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

auto infer(Symbols symbols) {
  if (symbols.size() > kMostSymbols) throw std::length_error("more than 2^30 symbols");
  std::pair<std::vector<Index>, std::vector<std::int64_t>> grammar;
  {
    nb::gil_scoped_release release;
    Sequitur sequitur;
    for (std::size_t i = 0; i < symbols.size(); ++i) sequitur.append(symbols.data()[i]);
    grammar = sequitur.grammar();
  }
  return std::make_pair(to_numpy(std::move(grammar.first)), to_numpy(std::move(grammar.second)));
}

}  // namespace

NB_MODULE(_sequitur, m) {
  m.def("infer", &infer, nb::arg("symbols"),
        "The Sequitur grammar of `symbols` (int32, none negative): bodies one after the other, and where each begins.");
}
