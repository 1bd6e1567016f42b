"""Three hosts that share their work over Redis or Kafka, and what happens to it when hosts restart, die or are cut off.

``python -m examples.cluster redis``; docs/cluster.md tells what it shows.
"""
