"""Scores of parsers, against values counted by hand."""

import math

import pytest

from lnz.metrics import Attachment, Brackets, attachment, brackets


class TestAttachment:
    gold = ((2, "det"), (3, "nsubj:pass"), (0, "root"), (3, "punct"))

    def test_by_hand(self):
        """Four words: three heads are right; of these one relation is wrong, and one differs in its subtype only."""
        found = attachment(self.gold, [(2, "amod"), (3, "nsubj"), (0, "root"), (2, "punct")])
        assert found == Attachment(words=4, heads=3, labelled=2)
        assert (found.uas, found.las) == (0.75, 0.5)

    def test_a_right_relation_to_a_wrong_head_is_wrong(self):
        assert attachment(self.gold, [(3, "det"), *self.gold[1:]]) == Attachment(4, 3, 3)

    def test_subtypes_are_cut_on_both_sides(self):
        assert attachment([(0, "a:b")], [(0, "a:c:d")]).labelled == 1
        assert attachment([(0, "ab")], [(0, "a")]).labelled == 0

    def test_words_without_a_gold_head_are_not_judged(self):
        assert attachment([(None, None), (0, "root")], [(2, "x"), (0, "root")]) == Attachment(1, 1, 1)
        assert attachment([(None, "x")], [(0, "x")]) == Attachment(0, 0, 0)
        assert attachment([(0, None)], [(0, "root")]) == Attachment(1, 1, 0)

    def test_adds_up_over_sentences(self):
        total = attachment(self.gold, self.gold) + attachment([(0, "root")], [(0, "dep")])
        assert total == Attachment(5, 5, 4)
        assert math.isnan(Attachment().uas)
        assert math.isnan(Attachment().las)

    def test_other_words(self):
        with pytest.raises(ValueError, match=r"predicted: expected 4 arcs as in gold, got 1"):
            attachment(self.gold, [(0, "root")])


def tree(text):
    """Constituents of bracketed text, each before those inside it."""
    found, open_, words = [], [], 0
    for token in text.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            open_.append(len(found))
            found.append(None)
        elif token == ")":
            place = open_.pop()
            found[place] = (*found[place], words)
        elif found[open_[-1]] is None:
            found[open_[-1]] = (token, words)
        else:
            words += 1
    return [(label, start, stop) for label, start, stop in found]


GOLD = "(TOP (S (NP-SBJ (DT the) (NN cat)) (VP (VBD saw) (NP (PRP it)) (PP (IN on) (NP (NN Monday)))) (. .)))"


class TestBrackets:
    def test_by_hand(self):
        """Gold has S, NP, VP, NP, PP, NP; the other one attaches the PP to the NP, by one NP more."""
        other = "(TOP (S (NP (DT the) (NN cat)) (VP (VBD saw) (NP (NP (PRP it)) (PP (IN on) (NP (NN Monday))))) (. .)))"
        found = brackets(tree(GOLD), tree(other))
        assert found == Brackets(right=6, predicted=7, gold=6, whole=0, trees=1)
        assert (found.precision, found.recall, found.f1) == (6 / 7, 1.0, 12 / 13)

    def test_of_the_rules(self):
        same = brackets(tree(GOLD), tree(GOLD))
        assert same == Brackets(6, 6, 6, 1, 1)
        functions = GOLD.replace("NP-SBJ", "NP=2").replace("(PP", "(PP-TMP-3")
        assert brackets(tree(GOLD), tree(functions)) == same

    def test_tags_do_not_count(self):
        assert brackets(tree(GOLD), tree(GOLD.replace("VBD", "NN").replace("PRP", "NN"))) == Brackets(6, 6, 6, 1, 1)

    def test_punctuation_is_taken_out(self):
        """Where the full stop hangs does not matter, nor a constituent of nothing but punctuation."""
        lower = GOLD.replace(")))) (. .)))", "))) (. .)))) ").replace("  ", " ")
        assert brackets(tree(GOLD), tree(lower)).right == 6
        assert brackets(tree(GOLD), tree(GOLD.replace("(. .)", "(X (. .))"))) == Brackets(6, 6, 6, 1, 1)
        assert brackets(tree(GOLD), tree(GOLD.replace("(. .)", "(NP (-NONE- *T*)) (. .)"))) == Brackets(6, 6, 6, 1, 1)
        dollars = "(S (NP ($ $) (CD 3)) (-LRB- -LRB-))"  # neither is punctuation here
        assert brackets(tree(dollars), tree(dollars)) == Brackets(2, 2, 2, 1, 1)

    def test_prt_is_advp(self):
        a, b = "(S (VP (VB go) (PRT (RP on))))", "(S (VP (VB go) (ADVP (RP on))))"
        assert brackets(tree(a), tree(b)) == Brackets(3, 3, 3, 1, 1)
        assert brackets(tree(a), tree(b.replace("ADVP", "PP"))) == Brackets(2, 3, 3, 0, 1)

    def test_twice_counts_twice(self):
        once, twice = "(S (NP (NN a)))", "(S (NP (NP (NN a))))"
        assert brackets(tree(once), tree(twice)) == Brackets(2, 3, 2, 0, 1)
        assert brackets(tree(twice), tree(twice)) == Brackets(3, 3, 3, 1, 1)

    def test_adds_up_over_sentences(self):
        total = brackets(tree(GOLD), tree(GOLD)) + brackets(tree("(S (NP (NN a)))"), tree("(S (VP (NN a)))"))
        assert total == Brackets(7, 8, 8, 1, 2)
        assert total.f1 == 14 / 16
        assert math.isnan(Brackets().f1)
        assert math.isnan(Brackets().precision)
        assert math.isnan(Brackets().recall)

    def test_nothing_but_punctuation(self):
        stop = "(S (. .))"
        assert brackets(tree(stop), tree(stop)) == Brackets(0, 0, 0, 1, 1)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"predicted: expected 1 words that count as in gold, got 2"):
            brackets(tree("(S (NN a))"), tree("(S (NN a) (NN b))"))
        with pytest.raises(ValueError, match=r"constituents: expected a tag of every word, found none of word 1"):
            brackets([("S", 0, 2), ("NN", 0, 1)], [])
