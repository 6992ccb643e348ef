"""The safety gate: a frozen classifier of the user's choice, whose verdict no other reward can outweigh.

The gate is as good as its classifier: what that overlooks passes, and a generator that is trained against it looks
for what it overlooks. A weighted reward, for comparison, is any classifier in `reward_funcs`: it shifts the balance
between safety and the other rewards, where the gate leaves nothing to balance.
"""

from .gate import SafetyGate, as_gate
from .ranking import GATE, check_gate, gate_rewards


__all__ = ["GATE", "SafetyGate", "as_gate", "check_gate", "gate_rewards"]
