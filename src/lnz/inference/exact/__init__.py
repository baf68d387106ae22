"""Exact inference: elimination on junction trees and its plans; and enumeration, the oracle, which shares no code."""
