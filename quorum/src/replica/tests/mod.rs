//! Claims about replicas, alone and in a simulated cluster.

mod agreement;
mod changes;
mod frozen;
mod hostile;
mod reads;
mod world;
